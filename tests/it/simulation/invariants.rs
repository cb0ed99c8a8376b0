//! What holds after each step, and what holds in the end.

use std::collections::{BTreeMap, HashMap, HashSet};

use mailbell::spool::{Ending, Filter, MailId, Spool, Stage, Summary};

use super::World;

/// The store and the other side at one moment.
pub struct Moment<'w> {
    seed: u64,
    list: Vec<Summary>,
    world: &'w World,
}

impl Moment<'_> {
    /// What holds at any time: the ledger balances, nothing that was answered 250 is missing, and the
    /// other side has heard of each ticket in order and once.
    pub async fn check<'w>(
        seed: u64,
        spool: &dyn Spool,
        accepted: &[MailId],
        world: &'w World,
    ) -> Moment<'w> {
        let audit = spool.audit().await.unwrap();
        assert!(audit.balances(), "seed {seed}: {:?}", audit.problems);
        let mut list = spool.list(Filter::default(), usize::MAX).await.unwrap();
        list.reverse();
        let present: HashSet<MailId> = list.iter().map(|one| one.mail).collect();
        for mail in accepted {
            assert!(present.contains(mail), "seed {seed}: {mail} is lost");
        }
        let moment = Moment { seed, list, world };
        for ticket in moment.tickets().keys() {
            moment.in_order_and_once(ticket);
        }
        moment
    }

    /// The deliveries of each ticket, in the order in which their mails arrived.
    fn tickets(&self) -> BTreeMap<&str, Vec<&Summary>> {
        let mut tickets: BTreeMap<&str, Vec<&Summary>> = BTreeMap::new();
        for one in &self.list {
            if let Some(ticket) = &one.external_id {
                tickets.entry(ticket).or_default().push(one);
            }
        }
        tickets
    }

    fn about(&self, ticket: &str) -> String {
        let arrived = self.world.arrived.iter().filter(|one| one.1 == ticket);
        let arrived: Vec<_> = arrived.collect();
        let deliveries = self
            .list
            .iter()
            .filter(|one| one.external_id.as_deref() == Some(ticket));
        let line = |one: &Summary| {
            let event = one.event.as_deref().unwrap_or("-");
            format!(
                "{}.{} {event} {}: {}",
                one.mail,
                one.delivery,
                one.stage.as_str(),
                one.reason
            )
        };
        let deliveries: Vec<String> = deliveries.map(line).collect();
        format!(
            "seed {}, {ticket}\narrived: {arrived:#?}\n{deliveries:#?}",
            self.seed
        )
    }

    /// Statuses as the other side has heard them, repeats of the same request folded.
    fn told(&self, ticket: &str) -> Vec<(&str, &str)> {
        let mut told: Vec<(&str, &str)> = Vec::new();
        for (key, _, status) in self.world.arrived.iter().filter(|(_, id, _)| id == ticket) {
            match told.iter().position(|(seen, _)| seen == key) {
                None => told.push((key, status)),
                // A person may retry what was refused, whatever has come since.
                Some(place) => assert!(
                    place + 1 == told.len() || self.world.refused.contains(key),
                    "a late repeat: {}",
                    self.about(ticket)
                ),
            }
        }
        told
    }

    fn in_order_and_once(&self, ticket: &str) {
        let places: HashMap<String, usize> = self
            .list
            .iter()
            .enumerate()
            .filter(|(_, one)| one.external_id.as_deref() == Some(ticket))
            .map(|(place, one)| (format!("{}.{}", one.mail, one.delivery), place))
            .collect();
        let told = self.told(ticket);
        for pair in told.windows(2) {
            // A person may retry it later, and what may have been taken before it was refused is sent
            // again with the next mail.
            if pair
                .iter()
                .any(|(key, _)| self.world.refused.contains(*key))
            {
                continue;
            }
            let place = |key: &str| places.get(key).copied();
            let (before, after) = (place(pair[0].0), place(pair[1].0));
            assert!(before < after, "out of order: {}", self.about(ticket));
            let mut refused = self.world.refused.iter();
            if refused.any(|key| (before..after).contains(&place(key))) {
                continue;
            }
            let pair = [pair[0].1, pair[1].1];
            let legal = !matches!(pair, ["new", "new"] | ["acknowledged", "new" | "acknowledged"] | ["resolved", "resolved" | "acknowledged"])
                // An acknowledgement of a ticket that was never opened does not keep it from opening.
                || (pair == ["acknowledged", "new"] && told[0].1 == "acknowledged");
            assert!(legal, "{pair:?}: {}", self.about(ticket));
        }
    }

    /// What holds when nothing is under way any more.
    pub async fn check_the_end(&self, spool: &dyn Spool) {
        let reasons = self.list.iter().all(|one| !one.reason.is_empty());
        assert!(reasons, "seed {}", self.seed);
        for (ticket, deliveries) in self.tickets() {
            // Whatever was closed last must not stay open on somebody's phone.
            let mut events = deliveries.iter().filter(|one| {
                one.event.as_deref() != Some("update") && !one.reason.starts_with("duplicate of")
            });
            if let Some(last) = events.next_back()
                && last.event.as_deref() == Some("resolved")
                && last.stage != Stage::Settled(Ending::DeadLetter)
            {
                let told = self.told(ticket);
                let closed = told.last().is_none_or(|(_, status)| *status == "resolved");
                assert!(closed, "still open: {}", self.about(ticket));
            }
        }
        let open = spool.tickets(None, usize::MAX).await.unwrap();
        for summary in open
            .iter()
            .filter(|one| one.external_id.starts_with("storm-"))
        {
            let id = Some(summary.external_id.clone());
            let has_members = open.iter().any(|one| one.storm == id);
            // One whose close was refused stays open, as any other ticket.
            let excused = self.list.iter().any(|one| {
                one.external_id == id && one.stage == Stage::Settled(Ending::DeadLetter)
            });
            let about = || self.about(&summary.external_id);
            assert!(has_members || excused, "a summary of nothing: {}", about());
        }
    }
}

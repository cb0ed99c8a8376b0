//! The mails that have to be decided, as this process has just written them: reading them back from
//! the file would cost more than anything else that is done to them.
//!
//! Owns when that is the whole truth. It is not after the start, after a write whose end is unknown,
//! when others may have changed the file, or when more waits than is held: then the file is asked for
//! the rest. The writer's thread tells of each commit in its order.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::limits::UNDECIDED_BYTES_MAX;
use crate::spool::{DeliveryId, Undecided};

#[derive(Debug, Default)]
pub(super) struct Fresh(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// By their number in the order of arrival.
    mails: BTreeMap<i64, Arc<Undecided>>,
    bytes: usize,
    /// No other mail up to this number is undecided.
    known_until: i64,
    /// How often that has been taken back.
    doubts: u64,
}

/// What the file has to be asked for.
#[derive(Debug)]
pub(super) struct Rest {
    /// Known already.
    pub(super) except: BTreeSet<DeliveryId>,
    doubts: u64,
}

/// What the file had beside that.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) mails: Vec<(i64, Undecided)>,
    /// There may be more, behind these.
    pub(super) has_more: bool,
}

impl Fresh {
    /// The oldest mails, or what is missing to know which they are.
    pub(super) fn oldest(&self, limit: usize) -> Result<Vec<Arc<Undecided>>, Rest> {
        let state = self.lock();
        let oldest = state.first(limit, state.known_until);
        if !oldest.is_empty() || state.known_until == i64::MAX {
            return Ok(oldest);
        }
        Err(Rest {
            except: state.deliveries().collect(),
            doubts: state.doubts,
        })
    }

    /// The oldest mails, with what was found.
    pub(super) fn complete(&self, rest: &Rest, found: Found, limit: usize) -> Vec<Arc<Undecided>> {
        let mut state = self.lock();
        let until = match found.mails.last() {
            Some((last, _)) if found.has_more => *last,
            _ => i64::MAX,
        };
        for (seq, mail) in found.mails {
            state.insert(seq, mail);
        }
        if state.doubts == rest.doubts {
            state.known_until = until;
        }
        let oldest = state.first(limit, until);
        state.bound();
        oldest
    }

    /// A mail is in the file now.
    pub(super) fn accepted(&self, seq: i64, mail: Undecided) {
        let mut state = self.lock();
        state.insert(seq, mail);
        state.bound();
    }

    /// These need not be decided any more.
    pub(super) fn decided(&self, deliveries: impl IntoIterator<Item = DeliveryId>) {
        let mut state = self.lock();
        for delivery in deliveries {
            state.remove(delivery);
        }
    }

    /// The file may have other mails to decide.
    pub(super) fn doubt(&self) {
        self.lock().doubt_beyond(0);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Up to the one with the number `until`.
    fn first(&self, limit: usize, until: i64) -> Vec<Arc<Undecided>> {
        let mails = self.mails.range(..=until).take(limit);
        mails.map(|(_, mail)| Arc::clone(mail)).collect()
    }

    fn deliveries(&self) -> impl Iterator<Item = DeliveryId> {
        let addressed = self.mails.values().flat_map(|mail| &mail.addressed);
        addressed.map(|one| one.delivery)
    }

    /// A mail may be found again, for other teams: one was decided, and is to be decided again.
    fn insert(&mut self, seq: i64, mail: Undecided) {
        match self.mails.entry(seq) {
            Entry::Vacant(place) => {
                self.bytes += mail.raw.len();
                place.insert(Arc::new(mail));
            }
            Entry::Occupied(mut held) => {
                let held = Arc::make_mut(held.get_mut());
                for one in mail.addressed {
                    if !held.addressed.contains(&one) {
                        held.addressed.push(one);
                    }
                }
            }
        }
    }

    fn remove(&mut self, delivery: DeliveryId) {
        let seq = delivery.seq();
        let Some(mail) = self.mails.get_mut(&seq) else {
            return;
        };
        if mail.addressed.iter().any(|one| one.delivery != delivery) {
            let mail = Arc::make_mut(mail);
            mail.addressed.retain(|one| one.delivery != delivery);
        } else if let Some(gone) = self.mails.remove(&seq) {
            self.bytes -= gone.raw.len();
        }
    }

    /// The newest are left to the file, when more is held than may be.
    fn bound(&mut self) {
        while self.bytes > UNDECIDED_BYTES_MAX
            && let Some((seq, newest)) = self.mails.pop_last()
        {
            self.bytes -= newest.raw.len();
            self.doubt_beyond(seq - 1);
        }
    }

    fn doubt_beyond(&mut self, seq: i64) {
        self.known_until = self.known_until.min(seq);
        self.doubts += 1;
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::clock::Time;
    use crate::spool::{Addressed, MailId};

    fn deliveries(seq: i64) -> [DeliveryId; 2] {
        [0, 1].map(|number| DeliveryId::new(seq, number))
    }

    fn mail(seq: i64, bytes: usize) -> Undecided {
        Undecided {
            mail: MailId(Uuid::from_u128(seq.unsigned_abs().into())),
            received: Time::from_ms(seq),
            reverse_path: String::new(),
            addressed: deliveries(seq)
                .map(|delivery| Addressed {
                    delivery,
                    team: format!("team of {delivery}"),
                    forward_path: String::new(),
                })
                .into(),
            raw: vec![b'x'; bytes],
        }
    }

    fn numbers(mails: &[Arc<Undecided>]) -> Vec<i64> {
        mails.iter().map(|mail| mail.received.ms()).collect()
    }

    fn found(numbers: &[i64], has_more: bool) -> Found {
        Found {
            mails: numbers.iter().map(|seq| (*seq, mail(*seq, 1))).collect(),
            has_more,
        }
    }

    #[test]
    fn the_file_is_asked_until_it_has_nothing_else() {
        let fresh = Fresh::default();
        fresh.accepted(7, mail(7, 1));
        let rest = fresh.oldest(3).unwrap_err();
        assert_eq!(rest.except, deliveries(7).into());
        // Between those that were found and the fresh one may be others.
        let oldest = fresh.complete(&rest, found(&[1, 2], true), 3);
        assert_eq!(numbers(&oldest), [1, 2]);
        assert_eq!(numbers(&fresh.oldest(1).unwrap()), [1]);
        fresh.decided([1, 2].into_iter().flat_map(deliveries));
        let rest = fresh.oldest(3).unwrap_err();
        assert_eq!(rest.except, deliveries(7).into());
        let oldest = fresh.complete(&rest, found(&[3], false), 9);
        assert_eq!(numbers(&oldest), [3, 7]);
        assert_eq!(numbers(&fresh.oldest(9).unwrap()), [3, 7]);
    }

    #[test]
    fn what_changes_while_the_file_is_asked_is_asked_for_again() {
        let fresh = Fresh::default();
        let rest = fresh.oldest(3).unwrap_err();
        fresh.doubt();
        fresh.complete(&rest, Found::default(), 3);
        let rest = fresh.oldest(3).unwrap_err();
        fresh.complete(&rest, Found::default(), 3);
        assert!(fresh.oldest(3).unwrap().is_empty());
    }

    #[test]
    fn a_mail_stays_until_each_of_its_teams_has_its_decision() {
        let fresh = Fresh::default();
        fresh.complete(&fresh.oldest(1).unwrap_err(), Found::default(), 1);
        fresh.accepted(1, mail(1, 5));
        let [first, second] = deliveries(1);
        fresh.decided([first]);
        let left = fresh.oldest(9).unwrap();
        let addressed = mail(1, 5).addressed;
        assert_eq!(left[0].addressed, addressed[1..]);
        // It is to be decided for the first team after all.
        fresh.doubt();
        let rest = fresh.oldest(9).unwrap_err();
        fresh.complete(&rest, found(&[1], false), 9);
        assert_eq!(fresh.oldest(9).unwrap()[0].addressed.len(), 2);
        fresh.decided([first]);
        fresh.decided([second, DeliveryId::new(8, 0)]);
        assert!(fresh.oldest(9).unwrap().is_empty());
        assert_eq!(fresh.lock().bytes, 0);
    }

    #[test]
    fn what_is_held_is_bounded() {
        let fresh = Fresh::default();
        fresh.complete(&fresh.oldest(1).unwrap_err(), Found::default(), 1);
        fresh.accepted(1, mail(1, UNDECIDED_BYTES_MAX));
        assert_eq!(numbers(&fresh.oldest(9).unwrap()), [1]);
        fresh.accepted(2, mail(2, 1));
        assert_eq!(numbers(&fresh.oldest(9).unwrap()), [1]);
        fresh.doubt();
        let rest = fresh.oldest(9).unwrap_err();
        assert_eq!(rest.except, deliveries(1).into());
        // One that was found is handed out, though there is no room to hold it.
        let oldest = fresh.complete(&rest, found(&[2], false), 9);
        assert_eq!(numbers(&oldest), [1, 2]);
        assert_eq!(numbers(&fresh.oldest(9).unwrap()), [1]);
        fresh.decided(deliveries(1));
        assert!(fresh.oldest(9).unwrap_err().except.is_empty());
    }
}

//! How many connections are inside, in all and from each peer.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::stats::TurnedAway;

#[derive(Debug, Default)]
pub struct Admission {
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    connections: usize,
    by_peer: HashMap<IpAddr, usize>,
}

/// A place inside, given back when dropped.
#[derive(Debug)]
pub struct Place {
    admission: Arc<Admission>,
    /// Whose bound it counts against, once that is known.
    peer: Option<IpAddr>,
}

impl Admission {
    /// A place for a peer that is not known yet: a load balancer is about to say.
    pub fn admit(self: &Arc<Admission>, connections_max: usize) -> Result<Place, TurnedAway> {
        let mut inside = self.lock();
        if inside.connections >= connections_max {
            return Err(TurnedAway::Full);
        }
        inside.connections += 1;
        Ok(Place {
            admission: Arc::clone(self),
            peer: None,
        })
    }

    /// The counts are changed in one step each, so they hold even if a holder panicked.
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Counts the place against this peer's bound too.
    pub fn belongs_to(
        mut self,
        peer: IpAddr,
        connections_max_per_peer: usize,
    ) -> Result<Place, TurnedAway> {
        let peer = one_host(peer);
        let mut inside = self.admission.lock();
        let of_peer = inside.by_peer.get(&peer).copied().unwrap_or_default();
        if of_peer >= connections_max_per_peer {
            // Before `self` is dropped, which takes the lock as well.
            drop(inside);
            return Err(TurnedAway::PeerFull);
        }
        inside.by_peer.insert(peer, of_peer + 1);
        drop(inside);
        self.peer = Some(peer);
        Ok(self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inside = self.admission.lock();
        inside.connections -= 1;
        let Some(peer) = self.peer else { return };
        if let Some(of_peer) = inside.by_peer.get_mut(&peer) {
            *of_peer -= 1;
            if *of_peer == 0 {
                inside.by_peer.remove(&peer);
            }
        }
    }
}

/// What one host can call itself: an IPv4 address, or any of an IPv6 /64.
pub(super) fn one_host(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(network))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_and_given_back() {
        let admission = Arc::new(Admission::default());
        let admit = |peer: &str| admission.admit(3)?.belongs_to(peer.parse().unwrap(), 2);
        let first = admit("192.0.2.1").unwrap();
        let _mapped = admit("::ffff:192.0.2.1").unwrap();
        assert_eq!(admit("192.0.2.1").unwrap_err(), TurnedAway::PeerFull);
        let _other = admit("2001:db8::1").unwrap();
        assert_eq!(admit("2001:db8::2").unwrap_err(), TurnedAway::Full);
        drop(first);
        let _same_net = admit("2001:db8::2").unwrap();
        assert_eq!(admission.lock().by_peer.len(), 2);
        assert_eq!(admission.lock().connections, 3);
    }
}

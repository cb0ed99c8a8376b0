//! Passwords: checked on a thread of their own, and slower for a peer that was wrong.
//!
//! Owns the memory of failures. A name that does not exist costs what a wrong password costs, of whatever
//! kind the passwords are.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use argon2::Argon2;
use argon2::password_hash::PasswordVerifier;
use argon2::password_hash::phc::PasswordHash;
use secrecy::ExposeSecret;
use sha_crypt::ShaCrypt;
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;

use super::admission::one_host;
use super::sasl::Credentials;
use crate::config::{Password, User};
use crate::limits;

/// Who may authenticate, and who failed to.
#[derive(Debug)]
pub struct Throttle {
    slots: Semaphore,
    failures: Mutex<HashMap<IpAddr, Failures>>,
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Instant,
}

impl Default for Throttle {
    fn default() -> Throttle {
        Throttle {
            slots: Semaphore::new(limits::AUTH_CONCURRENT_MAX),
            failures: Mutex::new(HashMap::new()),
        }
    }
}

impl Throttle {
    /// Answers late when the answer is no.
    pub async fn check(&self, users: Vec<User>, peer: IpAddr, credentials: Credentials) -> bool {
        let right = {
            let _slot = self.slots.acquire().await;
            tokio::task::spawn_blocking(move || is_right(&users, &credentials))
                .await
                .unwrap_or(false)
        };
        if !right {
            tokio::time::sleep(self.count_failure(one_host(peer))).await;
        }
        right
    }

    /// The delay that this failure earned.
    fn count_failure(&self, peer: IpAddr) -> Duration {
        let now = Instant::now();
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= limits::AUTH_PEERS_MAX {
            failures.retain(|_, failure| now - failure.last < limits::AUTH_MEMORY);
        }
        let before = failures
            .get(&peer)
            .filter(|failure| now - failure.last < limits::AUTH_MEMORY)
            .map_or(0, |failure| failure.count);
        if failures.len() < limits::AUTH_PEERS_MAX || failures.contains_key(&peer) {
            let count = before.saturating_add(1);
            failures.insert(peer, Failures { count, last: now });
        }
        delay(before)
    }
}

/// Takes milliseconds of a core for a hash: not for an async thread.
pub fn is_right(users: &[User], credentials: &Credentials) -> bool {
    let given = credentials.password.expose_secret();
    let (mine, others) = to_compare(users, &credentials.name);
    let right = mine.is_some_and(|password| matches(password, given));
    // Only who is wrong could learn something from the time.
    if !right {
        for password in others {
            matches(password, given);
        }
    }
    right
}

/// The password of this name, and one of each kind that it is not of.
fn to_compare<'a>(users: &'a [User], name: &str) -> (Option<&'a Password>, Vec<&'a Password>) {
    let named = users.iter().find(|user| user.name == name);
    let mine = named.map(|user| &user.password);
    let mut kinds: HashSet<&str> = mine.map(kind).into_iter().collect();
    let passwords = users.iter().map(|user| &user.password);
    let others = passwords.filter(|password| kinds.insert(kind(password)));
    (mine, others.collect())
}

/// What the time depends on: a hash's algorithm and its parameters, which stand before salt and hash.
fn kind(password: &Password) -> &str {
    match password {
        Password::Plain(_) => "",
        Password::Hash(hash) => hash.expose_secret().rsplitn(3, '$').nth(2).unwrap_or(""),
    }
}

fn matches(password: &Password, given: &str) -> bool {
    match password {
        Password::Plain(right) => {
            let right = right.expose_secret().as_bytes();
            right.ct_eq(given.as_bytes()).into()
        }
        Password::Hash(hash) => hash_matches(hash.expose_secret(), given),
    }
}

/// A PHC string of argon2, or a `$5$` or `$6$` hash as in a passwd file.
fn hash_matches(hash: &str, given: &str) -> bool {
    if hash.starts_with("$5$") || hash.starts_with("$6$") {
        return ShaCrypt::default()
            .verify_password(given.as_bytes(), hash)
            .is_ok();
    }
    PasswordHash::new(hash).is_ok_and(|hash| {
        Argon2::default()
            .verify_password(given.as_bytes(), &hash)
            .is_ok()
    })
}

/// Is it of a form that [`is_right`] can check? Costs nothing, whatever number of rounds it names.
pub fn is_hash(text: &str) -> bool {
    let length = match text.get(..3) {
        Some("$5$") => 43,
        Some("$6$") => 86,
        _ => {
            return PasswordHash::new(text).is_ok_and(|hash| {
                hash.algorithm.as_str().starts_with("argon2") && hash.hash.is_some()
            });
        }
    };
    let crypt = |part: &str| {
        part.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"./".contains(&byte))
    };
    let mut parts = text.split('$').skip(2).peekable();
    if let Some(rounds) = parts.peek().and_then(|part| part.strip_prefix("rounds=")) {
        if rounds.parse::<u32>().is_err() {
            return false;
        }
        parts.next();
    }
    let (salt, hash) = (parts.next(), parts.next());
    parts.next().is_none()
        && salt.is_some_and(|salt| salt.len() <= 16 && crypt(salt))
        && hash.is_some_and(|hash| hash.len() == length && crypt(hash))
}

fn delay(failures_before: u32) -> Duration {
    limits::AUTH_DELAY_FIRST
        .saturating_mul(2_u32.saturating_pow(failures_before))
        .min(limits::AUTH_DELAY_MAX)
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;
    use crate::config::Secret;

    fn is(password: Password, given: &str) -> bool {
        let users = [User {
            name: "kix".to_owned(),
            password,
        }];
        let credentials = |name: &str| Credentials {
            name: name.to_owned(),
            password: SecretString::from(given),
        };
        assert!(!is_right(&users, &credentials("nobody")));
        is_right(&users, &credentials("kix"))
    }

    #[test]
    fn every_kind_of_password() {
        // The argon2 value is that of `argon2::Argon2::default()` for "open sesame"; the other
        // is from `openssl passwd -6 -salt saltsalt`.
        let salted = argon2::password_hash::PasswordHasher::hash_password_with_salt(
            &Argon2::default(),
            b"open sesame",
            b"saltsaltsalt",
        );
        let argon: argon2::password_hash::phc::PasswordHash = salted.unwrap();
        let kinds = [
            Password::Plain(Secret::from("open sesame")),
            Password::Hash(Secret::from(argon.to_string())),
            Password::Hash(Secret::from(SHA512)),
        ];
        for kind in kinds {
            if let Password::Hash(hash) = &kind {
                assert!(is_hash(hash.expose_secret()));
            }
            assert!(is(kind.clone(), "open sesame"), "{kind:?}");
            assert!(!is(kind.clone(), "open sesam"), "{kind:?}");
            assert!(!is(kind, ""));
        }
        assert!(!is(Password::Hash(Secret::from("no hash")), "no hash"));
    }

    #[test]
    fn the_same_work_is_done_for_every_name() {
        let argon = |cost: &str| format!("$argon2id$v=19${cost}$c2FsdHNhbHQ$aGFzaGhhc2g");
        let hashes = [
            SHA512.to_owned(),
            SHA512.replace("$6$", "$6$rounds=9000$"),
            argon("m=19456,t=2,p=1"),
            argon("m=19456,t=2,p=1").replace("c2Fs", "cGVw"),
            argon("m=65536,t=3,p=4"),
        ];
        let hashes = hashes.map(|hash| Password::Hash(Secret::from(hash)));
        let plain = ["x", "y"].map(|text| Password::Plain(Secret::from(text)));
        let users: Vec<User> = plain
            .into_iter()
            .chain(hashes)
            .enumerate()
            .map(|(number, password)| User {
                name: number.to_string(),
                password,
            })
            .collect();
        let names = users.iter().map(|user| user.name.as_str());
        for name in names.chain(["nobody"]) {
            let (mine, others) = to_compare(&users, name);
            assert_eq!(mine.is_some(), name != "nobody");
            let mut work: Vec<&str> = mine.into_iter().chain(others).map(kind).collect();
            work.sort_unstable();
            let expected = [
                "",
                "$6",
                "$6$rounds=9000",
                "$argon2id$v=19$m=19456,t=2,p=1",
                "$argon2id$v=19$m=65536,t=3,p=4",
            ];
            assert_eq!(work, expected, "{name}");
        }
    }

    const SHA512: &str = "$6$saltsalt$e/5XKibXPLqVcfjpD.ouauaJrAOL5V0uo80Lt7n7EbRdRiCx3HbQ90yjOHr.G0T.mx79PEMRy8nmtr0qSYhQp1";

    #[test]
    fn hashes_are_known_by_their_form() {
        let sha256 = "$5$saltsalt$vfVWdjTw2LfjNPFz8oNHHHFUWZr0fdWeGUO6gEVv0n5";
        let with_rounds = SHA512.replace("$6$", "$6$rounds=5000$");
        for good in [SHA512, sha256, &with_rounds] {
            assert!(is_hash(good), "{good}");
        }
        for bad in [
            "",
            "secret",
            "$1$saltsalt$qjXMvbEw8oaL.CzflDtaK/",
            "$2b$12$abcdefghijklmnopqrstuv",
            "$6$saltsalt$short",
            "$6$rounds=many$saltsalt$x",
            "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ",
            &format!("{SHA512}$more"),
            &sha256.replace('w', "!"),
        ] {
            assert!(!is_hash(bad), "{bad}");
        }
    }

    #[test]
    fn delays_grow_to_their_bound() {
        let delays: Vec<u64> = (0..8).map(|n| delay(n).as_millis() as u64).collect();
        assert_eq!(delay(0), limits::AUTH_DELAY_FIRST);
        assert_eq!(delays, [500, 1000, 2000, 4000, 8000, 16000, 16000, 16000]);
        assert_eq!(delay(u32::MAX), limits::AUTH_DELAY_MAX);
    }

    #[test]
    fn peers_are_remembered_up_to_a_bound() {
        let throttle = Throttle::default();
        for number in 0..=u32::try_from(limits::AUTH_PEERS_MAX).unwrap() {
            let peer = std::net::Ipv4Addr::from(0x0a00_0000 + number);
            throttle.count_failure(peer.into());
        }
        let known = throttle.failures.lock().unwrap().len();
        assert_eq!(known, limits::AUTH_PEERS_MAX);
    }

    #[tokio::test]
    async fn passwords_wait_for_a_slot() {
        let throttle = Throttle::default();
        let all = u32::try_from(limits::AUTH_CONCURRENT_MAX).unwrap();
        let slots = throttle.slots.acquire_many(all).await.unwrap();
        let credentials = Credentials {
            name: "kix".to_owned(),
            password: SecretString::from("x"),
        };
        let check = throttle.check(Vec::new(), "192.0.2.1".parse().unwrap(), credentials);
        let waited = tokio::time::timeout(Duration::from_millis(50), check).await;
        assert!(waited.is_err(), "a fifth password was looked at");
        assert!(throttle.failures.lock().unwrap().is_empty());
        drop(slots);
    }

    #[test]
    fn failures_are_remembered_by_peer() {
        let throttle = Throttle::default();
        let (one, other) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        assert_eq!(throttle.count_failure(one), delay(0));
        assert_eq!(throttle.count_failure(one), delay(1));
        assert_eq!(throttle.count_failure(other), delay(0));
    }
}

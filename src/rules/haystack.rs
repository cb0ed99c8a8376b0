//! A text that many regexes are asked about, and what is found out about it only once.

use std::borrow::Cow;
use std::cell::OnceCell;

use super::everyday::is_everyday;
use crate::need::Grams;

#[derive(Debug, Clone)]
pub struct Haystack<'a> {
    pub text: Cow<'a, str>,
    grams: OnceCell<Grams>,
    everyday: OnceCell<bool>,
}

impl Haystack<'_> {
    pub fn grams(&self) -> &Grams {
        self.grams.get_or_init(|| Grams::of(&self.text))
    }

    pub fn is_everyday(&self) -> bool {
        *self.everyday.get_or_init(|| is_everyday(&self.text))
    }
}

impl<'a, T: Into<Cow<'a, str>>> From<T> for Haystack<'a> {
    fn from(text: T) -> Haystack<'a> {
        Haystack {
            text: text.into(),
            grams: OnceCell::new(),
            everyday: OnceCell::new(),
        }
    }
}

//! Which source has been silent for too long, counted in the hours in which it is expected to send.
//! Pure.

use std::time::Duration;

use jiff::civil::{Date, Time as Clock, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use crate::clock::Time;
use crate::limits::SILENCE_DAYS_MAX;

/// Days of the week with hours; `Mon-Fri 08:00-18:00, Sat 09:00-13:00`. Hours may go beyond midnight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hours(Vec<Shift>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Shift {
    days: Vec<Weekday>,
    from: Clock,
    /// Of the next day, when it is not later than `from`.
    until: Clock,
}

impl Default for Hours {
    /// Around the clock.
    fn default() -> Hours {
        Hours(vec![Shift {
            days: (0..7).map(weekday).collect(),
            from: Clock::midnight(),
            until: Clock::midnight(),
        }])
    }
}

impl Hours {
    /// `None`: not of that form.
    pub fn parse(text: &str) -> Option<Hours> {
        text.split(',').map(shift).collect::<Option<_>>().map(Hours)
    }

    /// How much of these hours lies between two moments. Looks at the last
    /// [`SILENCE_DAYS_MAX`] days at most.
    pub fn between(&self, from: Time, to: Time, zone: &TimeZone) -> Duration {
        let (Some(from), Some(to)) = (moment(from), moment(to)) else {
            return Duration::ZERO;
        };
        let last = to.to_zoned(zone.clone()).date();
        let earliest = last.saturating_sub(SILENCE_DAYS_MAX.days());
        // A shift of the day before may go on.
        let first = from.to_zoned(zone.clone()).date();
        let mut day = first.saturating_sub(1.day()).max(earliest);
        let mut spans = Vec::new();
        while day <= last {
            for shift in self
                .0
                .iter()
                .filter(|one| one.days.contains(&day.weekday()))
            {
                if let Some((begin, end)) = shift.on(day, zone) {
                    spans.push((begin.max(from), end.min(to)));
                }
            }
            let Ok(next) = day.tomorrow() else { break };
            day = next;
        }
        sum(spans)
    }
}

impl Shift {
    fn on(&self, day: Date, zone: &TimeZone) -> Option<(Timestamp, Timestamp)> {
        let end = match self.until <= self.from {
            true => day.tomorrow().ok()?,
            false => day,
        };
        let at = |day: Date, time| zone.to_timestamp(day.to_datetime(time)).ok();
        Some((at(day, self.from)?, at(end, self.until)?))
    }
}

/// The moment as people there write it.
pub fn told(moment: Time, zone: &TimeZone) -> String {
    let moment = self::moment(moment).unwrap_or_default();
    let zoned = moment.to_zoned(zone.clone());
    zoned.strftime("%a %Y-%m-%d %H:%M %Z").to_string()
}

/// What is in several spans counts once.
fn sum(mut spans: Vec<(Timestamp, Timestamp)>) -> Duration {
    spans.sort();
    let mut counted_to = Timestamp::MIN;
    let mut sum = Duration::ZERO;
    for (begin, end) in spans {
        let begin = begin.max(counted_to);
        if begin < end {
            sum += Duration::try_from(end.duration_since(begin)).unwrap_or_default();
            counted_to = end;
        }
    }
    sum
}

fn moment(time: Time) -> Option<Timestamp> {
    Timestamp::from_millisecond(time.ms()).ok()
}

fn shift(text: &str) -> Option<Shift> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (days, hours) = match words.as_slice() {
        [one] if one.contains(':') => (None, Some(*one)),
        [one] => (Some(*one), None),
        [days, hours] => (Some(*days), Some(*hours)),
        _ => return None,
    };
    let days = match days {
        None => (0..7).map(weekday).collect(),
        Some(days) => match days.split_once('-') {
            None => vec![named(days)?],
            Some((first, last)) => {
                let first = named(first)?;
                let count = first.until(named(last)?) as u8;
                let monday = first.to_monday_zero_offset() as u8;
                (monday..=monday + count).map(weekday).collect()
            }
        },
    };
    let (from, until) = match hours {
        None => (Clock::midnight(), Clock::midnight()),
        Some(hours) => {
            let (from, until) = hours.split_once('-')?;
            (of_day(from)?, of_day(until)?)
        }
    };
    Some(Shift { days, from, until })
}

fn of_day(text: &str) -> Option<Clock> {
    if text == "24:00" {
        return Some(Clock::midnight());
    }
    let (hour, minute) = text.split_once(':')?;
    Clock::new(hour.parse().ok()?, minute.parse().ok()?, 0, 0).ok()
}

const DAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];

/// Counted on from Monday, round and round.
fn weekday(number: u8) -> Weekday {
    DAYS[usize::from(number % 7)].1
}

fn named(text: &str) -> Option<Weekday> {
    let name = text.to_ascii_lowercase();
    let found = DAYS.iter().find(|(short, _)| *short == name);
    found.map(|(_, day)| *day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Time {
        Time::from_ms(text.parse::<Timestamp>().unwrap().as_millisecond())
    }

    fn hours(hours: &str, from: &str, to: &str) -> f64 {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let hours = Hours::parse(hours).unwrap();
        hours.between(at(from), at(to), &zone).as_secs_f64() / 3600.0
    }

    #[test]
    fn only_the_hours_of_work_count() {
        let desk = "Mon-Fri 08:00-18:00";
        // From Friday 16:00 to Monday 09:30, as Berlin counts.
        let weekend = hours(desk, "2026-07-03T14:00:00Z", "2026-07-06T07:30:00Z");
        assert_eq!(weekend, 3.5);
        assert_eq!(
            hours(desk, "2026-07-04T00:00:00Z", "2026-07-05T20:00:00Z"),
            0.0
        );
        assert_eq!(
            hours("Sat", "2026-07-03T00:00:00Z", "2026-07-06T00:00:00Z"),
            24.0
        );
        let saturday = "Mon-Fri 08:00-18:00, Sat 09:00-13:00, Sat 12:00-14:00";
        assert_eq!(
            hours(saturday, "2026-07-03T14:00:00Z", "2026-07-06T07:30:00Z"),
            8.5
        );
        assert_eq!(
            hours(desk, "2026-07-03T14:00:00Z", "2026-07-03T13:00:00Z"),
            0.0
        );
    }

    #[test]
    fn a_night_shift_goes_beyond_midnight_and_sunday_before_monday() {
        let night = "Fri-Mon 22:00-06:00";
        assert_eq!(
            hours(night, "2026-07-06T22:00:00Z", "2026-07-07T10:00:00Z"),
            6.0
        );
        assert_eq!(
            hours(night, "2026-07-02T20:00:00Z", "2026-07-03T19:00:00Z"),
            0.0
        );
        assert_eq!(
            hours(
                "22:00-24:00",
                "2026-07-02T00:00:00Z",
                "2026-07-03T00:00:00Z"
            ),
            2.0
        );
    }

    #[test]
    fn the_clocks_change() {
        // On 29 March 2026 Berlin skips the hour after two; on 25 October it has it twice.
        let around = "Sun 00:00-24:00";
        assert_eq!(
            hours(around, "2026-03-28T12:00:00Z", "2026-03-30T12:00:00Z"),
            23.0
        );
        assert_eq!(
            hours(around, "2026-10-24T12:00:00Z", "2026-10-26T12:00:00Z"),
            25.0
        );
        let desk = "Mon-Fri 08:00-18:00";
        assert_eq!(
            hours(desk, "2026-03-27T16:00:00Z", "2026-03-30T07:00:00Z"),
            2.0
        );
    }

    #[test]
    fn what_is_no_hours_is_refused() {
        for text in [
            "",
            "Mon-Fri 8-18",
            "Mon-Foo 08:00-18:00",
            "Mon 25:00-26:00",
            "a b c",
        ] {
            assert_eq!(Hours::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_silence_of_years_is_not_counted_day_by_day() {
        let hours = hours(
            "00:00-24:00",
            "1970-01-01T00:00:00Z",
            "2026-07-01T00:00:00Z",
        );
        assert!(hours >= 24.0 * 365.0, "{hours}");
        assert!(hours <= 24.0 * 401.0, "{hours}");
    }
}

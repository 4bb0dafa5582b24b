//! Durations as Go writes them: kube-proxy's flags and manifests are full of them.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Nanoseconds of each unit, the longer name first where one begins with another.
const UNITS: [(&str, f64); 8] =
    [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("μs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)];

/// Longer than any setting can mean, short enough that adding it to a clock is safe.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Reads `30s`, `1h0m0s`, `1.5h`, `250ms`, and `0` without a unit.
///
/// # Errors
/// Half a sentence that says what a duration looks like.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || "is not a duration; write it like 30s, 1m30s or 1h".to_owned();
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.starts_with('-') {
        return Err("is negative; write a duration like 30s, 1m30s or 1h".to_owned());
    }
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut nanos = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        // "m" begins "ms": the unit is everything up to the next digit.
        let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == &rest[..unit_end]).ok_or_else(wrong)?;
        nanos += number * unit;
        rest = &rest[unit_end..];
    }
    let seconds = nanos / 1e9;
    let duration = Duration::try_from_secs_f64(seconds).map_err(|_| wrong())?;
    if duration > LONGEST {
        Err("is longer than a hundred years; write something like 1h".to_owned())
    } else {
        Ok(duration)
    }
}

/// A duration that reads and writes itself as Go does (`metav1.Duration`): always a text, `1h0m0s`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GoDuration(pub Duration);

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanos) = (self.0.as_secs(), self.0.subsec_nanos());
        if seconds == 0 && nanos != 0 {
            let (unit, size) = match nanos {
                0..1_000 => ("ns", 1.0),
                1_000..1_000_000 => ("µs", 1e3),
                _ => ("ms", 1e6),
            };
            return write!(f, "{}{unit}", f64::from(nanos) / size);
        }
        let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if seconds >= 60 {
            write!(f, "{minutes}m")?;
        }
        match format!("{nanos:09}").trim_end_matches('0') {
            "" => write!(f, "{rest}s"),
            fraction => write!(f, "{rest}.{fraction}s"),
        }
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).map(Self).map_err(|why| de::Error::custom(format_args!("{text:?} {why}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for text in
            ["0s", "30s", "1m0s", "15m0s", "1h0m0s", "24h0m0s", "1.5s", "250ms", "1.5ms", "10µs", "5ns", "1m30.25s"]
        {
            let read = GoDuration(parse(text).expect("a duration"));
            assert_eq!(read.to_string(), text);
        }
    }

    #[test]
    fn go_durations_mean_what_go_means() {
        let cases = [
            ("0", Duration::ZERO),
            ("0s", Duration::ZERO),
            ("30s", Duration::from_secs(30)),
            ("1h0m0s", Duration::from_secs(3600)),
            ("15m0s", Duration::from_secs(900)),
            ("1.5h", Duration::from_secs(5400)),
            ("250ms", Duration::from_millis(250)),
            ("1m30s", Duration::from_secs(90)),
            ("10us", Duration::from_micros(10)),
            ("10µs", Duration::from_micros(10)),
            ("5ns", Duration::from_nanos(5)),
        ];
        for (text, wanted) in cases {
            assert_eq!(parse(text), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_duration_is_refused_with_an_example() {
        for text in ["", "s", "30", "30 s", "1x", "-1s", "1h-3m", "..s", "9999999999h", "infs", "1e400h"] {
            let said = parse(text).expect_err(text);
            assert!(said.contains("like"), "{text}: {said}");
        }
    }
}

//! Durations by size, in fixed memory.
//!
//! Log-linear: exact up to 127 ns, then 64 buckets in each power of two up to 39 hours. A bucket's middle is at most 0.8 %
//! from any value in it. Two histograms add up bucket by bucket. Our own rather than the `hdrhistogram` crate: what we need
//! of that is these hundred lines, and its serialised form is opaque to whoever reads our JSON.

use std::fmt::Write;
use std::time::Duration;

use serde::{Deserialize, Serialize};

const OCTAVE_BITS: u32 = 6;
const OCTAVE: usize = 1 << OCTAVE_BITS;
/// Longer times count as this one: 39 hours, beyond any deadline.
const NANOSECONDS_MAX: u64 = (1 << 47) - 1;
/// Buckets at most: 21 KiB of counters.
const BUCKETS_MAX: usize = bucket(NANOSECONDS_MAX) + 1;

/// How many durations of which size.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct Histogram {
    /// As long as the largest value needs.
    counts: Vec<u64>,
    count: u64,
    nanoseconds_sum: u128,
    nanoseconds_min: u64,
    nanoseconds_max: u64,
}

/// Bucket of a value.
const fn bucket(nanoseconds: u64) -> usize {
    let shift = (u64::BITS - nanoseconds.leading_zeros()).saturating_sub(OCTAVE_BITS + 1);
    shift as usize * OCTAVE + (nanoseconds >> shift) as usize
}

/// Least and greatest value of a bucket.
fn bounds(bucket: usize) -> (u64, u64) {
    let shift = (bucket / OCTAVE).saturating_sub(1);
    let least = ((bucket - shift * OCTAVE) as u64) << shift;
    (least, least + (1 << shift) - 1)
}

impl Histogram {
    /// Adds one duration.
    pub fn record(&mut self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).min(NANOSECONDS_MAX);
        let bucket = bucket(nanoseconds);
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.nanoseconds_min = if self.count == 0 { nanoseconds } else { self.nanoseconds_min.min(nanoseconds) };
        self.nanoseconds_max = self.nanoseconds_max.max(nanoseconds);
        self.nanoseconds_sum += u128::from(nanoseconds);
        self.count += 1;
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The smallest value that so many in a thousand are at or below, by nearest rank; `None` of none.
    /// Within 0.8 %; the greatest of all (1,000) is exact.
    pub fn quantile(&self, per_mille: u32) -> Option<Duration> {
        let rank = (self.count * u64::from(per_mille)).div_ceil(1_000).clamp(1, self.count.max(1));
        if rank == self.count {
            return self.max();
        }
        let mut below = 0;
        let found = self.counts.iter().position(|count| {
            below += count;
            below >= rank
        });
        let (least, greatest) = bounds(found?);
        let middle = least + (greatest - least) / 2;
        Some(Duration::from_nanos(middle.clamp(self.nanoseconds_min, self.nanoseconds_max)))
    }

    /// The longest.
    pub fn max(&self) -> Option<Duration> {
        (self.count > 0).then(|| Duration::from_nanos(self.nanoseconds_max))
    }

    /// The shortest.
    pub fn min(&self) -> Option<Duration> {
        (self.count > 0).then(|| Duration::from_nanos(self.nanoseconds_min))
    }

    /// The mean, exact.
    pub fn mean(&self) -> Option<Duration> {
        let mean = self.nanoseconds_sum.checked_div(u128::from(self.count))?;
        Some(Duration::from_nanos(mean as u64))
    }

    /// The buckets that are not empty: least and greatest value, and how many.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, Duration, u64)> {
        let filled = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        filled.map(|(bucket, count)| {
            let (least, greatest) = bounds(bucket);
            (Duration::from_nanos(least), Duration::from_nanos(greatest), *count)
        })
    }
}

/// As it stands in JSON: the percentiles for who only reads, the buckets for who computes.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    count: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    milliseconds: Option<Percentiles>,
    nanoseconds_min: u64,
    nanoseconds_max: u64,
    nanoseconds_sum: u128,
    /// `BUCKET:COUNT` with spaces between. A bucket below 128 holds that many nanoseconds; any other, with s = bucket / 64
    /// - 1, those from (bucket - 64 s) << s on, 1 << s of them.
    buckets: String,
}

#[derive(Serialize, Deserialize)]
struct Percentiles {
    p50: f64,
    p90: f64,
    p99: f64,
    #[serde(rename = "p99.9")]
    p99_9: f64,
    max: f64,
}

impl From<Histogram> for Stored {
    fn from(histogram: Histogram) -> Stored {
        let at = |per_mille| histogram.quantile(per_mille).unwrap_or_default().as_secs_f64() * 1e3;
        let mut buckets = String::new();
        for (bucket, count) in histogram.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let space = if buckets.is_empty() { "" } else { " " };
            let _ = write!(buckets, "{space}{bucket}:{count}");
        }
        let percentiles = || Percentiles { p50: at(500), p90: at(900), p99: at(990), p99_9: at(999), max: at(1_000) };
        Stored {
            count: histogram.count,
            milliseconds: (histogram.count > 0).then(percentiles),
            nanoseconds_min: histogram.nanoseconds_min,
            nanoseconds_max: histogram.nanoseconds_max,
            nanoseconds_sum: histogram.nanoseconds_sum,
            buckets,
        }
    }
}

impl TryFrom<Stored> for Histogram {
    type Error = String;

    /// Refuses buckets that we do not have, and counts that do not add up.
    fn try_from(stored: Stored) -> Result<Histogram, String> {
        let mut counts = Vec::new();
        for word in stored.buckets.split_ascii_whitespace() {
            let pair =
                word.split_once(':').and_then(|(bucket, count)| Some((bucket.parse().ok()?, count.parse().ok()?)));
            let (bucket, count): (usize, u64) = pair
                .filter(|(bucket, _)| *bucket < BUCKETS_MAX && *bucket >= counts.len())
                .ok_or_else(|| format!("histogram bucket `{word}` is none"))?;
            counts.resize(bucket, 0);
            counts.push(count);
        }
        let sum = counts.iter().try_fold(0u64, |sum, count| sum.checked_add(*count));
        let Stored { count, nanoseconds_min, nanoseconds_max, nanoseconds_sum, .. } = stored;
        if sum != Some(count) || nanoseconds_min > nanoseconds_max {
            return Err(format!("histogram of {count} does not add up"));
        }
        Ok(Histogram { counts, count, nanoseconds_sum, nanoseconds_min, nanoseconds_max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_one_another_and_hold_their_values_within_a_percent() {
        let mut next = 0;
        for index in 0..BUCKETS_MAX {
            let (least, greatest) = bounds(index);
            assert_eq!((least, bucket(least), bucket(greatest)), (next, index, index));
            let middle = least + (greatest - least) / 2;
            assert!((greatest - middle) as f64 <= 0.008 * least as f64 || least == greatest, "bucket {index}");
            next = greatest + 1;
        }
        assert_eq!(next, NANOSECONDS_MAX + 1);
        assert!(BUCKETS_MAX * size_of::<u64>() <= 22 << 10);
    }

    #[test]
    fn quantiles_are_near_those_of_the_sorted_values() {
        let mut random = crate::schedule::Sequence::new(5);
        let mut values: Vec<u64> =
            (0..10_000).map(|_| (1u64 << (random.next() % 40)) | (random.next() % 1_000)).collect();
        let mut histogram = Histogram::default();
        values.iter().for_each(|value| histogram.record(Duration::from_nanos(*value)));
        values.sort_unstable();
        for per_mille in [1, 100, 500, 900, 990, 999, 1_000] {
            let exact = values[(values.len() * per_mille as usize).div_ceil(1_000) - 1] as f64;
            let near = histogram.quantile(per_mille).unwrap().as_nanos() as f64;
            assert!((near - exact).abs() <= 0.008 * exact, "{per_mille}: {near} {exact}");
        }
        let mean = values.iter().map(|value| u128::from(*value)).sum::<u128>() / 10_000;
        assert_eq!(histogram.mean().unwrap().as_nanos(), mean);
        assert_eq!(histogram.max().unwrap().as_nanos() as u64, values[9_999]);
        assert_eq!(histogram.min().unwrap().as_nanos() as u64, values[0]);
    }

    #[test]
    fn none_has_no_quantile_and_endless_counts_as_the_greatest() {
        let mut histogram = Histogram::default();
        assert_eq!((histogram.quantile(500), histogram.max(), histogram.mean()), (None, None, None));
        histogram.record(Duration::MAX);
        assert_eq!(histogram.quantile(1).unwrap().as_nanos() as u64, NANOSECONDS_MAX);
    }

    #[test]
    fn json_gives_the_same_histogram_back_and_refuses_what_does_not_add_up() {
        let mut histogram = Histogram::default();
        [3, 3, 900, 70_000_000].into_iter().for_each(|value| histogram.record(Duration::from_nanos(value)));
        let text = serde_json::to_string(&histogram).unwrap();
        assert!(text.contains(r#""buckets":"3:2 "#), "{text}");
        assert_eq!(serde_json::from_str::<Histogram>(&text).unwrap(), histogram);
        let empty = serde_json::to_string(&Histogram::default()).unwrap();
        assert_eq!(serde_json::from_str::<Histogram>(&empty).unwrap(), Histogram::default());
        for (from, to) in
            [("3:2", "3:3"), ("3:2", "9999:2"), ("3:2", "3:2 3:2"), ("3:2", "x"), ("\"count\":4", "\"count\":5")]
        {
            assert!(serde_json::from_str::<Histogram>(&text.replacen(from, to, 1)).is_err(), "{to}");
        }
    }
}

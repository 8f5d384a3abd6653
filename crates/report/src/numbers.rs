//! How numbers are written.

/// With commas between thousands.
pub(crate) fn whole(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A fraction as per cent, of an axis.
pub(crate) fn percent(value: f64) -> String {
    format!("{} %", short(value * 100.0))
}

/// A fraction as per cent with two decimals, of an accuracy.
pub(crate) fn accuracy(value: f64) -> String {
    format!("{:.2} %", value * 100.0)
}

/// A difference of fractions in points.
pub(crate) fn points(value: f64) -> String {
    format!("{:+.2}", value * 100.0).replace('-', "−")
}

/// Shortened by thousands: 1.5 M.
pub(crate) fn compact(value: f64) -> String {
    let size = value.abs();
    match size {
        _ if size >= 1e9 => format!("{} G", short(value / 1e9)),
        _ if size >= 1e6 => format!("{} M", short(value / 1e6)),
        _ if size >= 1e4 => format!("{} k", short(value / 1e3)),
        _ if size > 0.0 && size < 1e-4 => format!("{value:.0e}"),
        _ => short(value),
    }
}

/// Up to four decimals, without zeros at the end.
pub(crate) fn short(value: f64) -> String {
    let text = format!("{value:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// Bytes in powers of 1,000.
pub(crate) fn bytes(value: u64) -> String {
    let size = value as f64;
    match value {
        0..1_000 => format!("{value} B"),
        1_000..1_000_000 => format!("{:.1} kB", size / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", size / 1e6),
        _ => format!("{:.2} GB", size / 1e9),
    }
}

/// Seconds, minutes or hours.
pub(crate) fn seconds(value: f64) -> String {
    match value {
        _ if value < 10.0 => format!("{value:.1} s"),
        _ if value < 120.0 => format!("{value:.0} s"),
        _ if value < 7200.0 => format!("{:.0} min {:.0} s", (value / 60.0).floor(), value % 60.0),
        _ => format!("{:.1} h", value / 3600.0),
    }
}

/// A number of things: `1 network`, `2 networks`.
pub(crate) fn counted(n: usize, thing: &str) -> String {
    format!("{} {thing}{}", whole(n as u64), if n == 1 { "" } else { "s" })
}

/// Standard errors to either end of a normal 95 % interval.
const Z_95: f64 = 1.959_964;

/// 95 % interval of a share that was counted on `n` images (Wilson 1927, score interval).
pub(crate) fn wilson(share: f64, n: u64) -> [f64; 2] {
    let n = n.max(1) as f64;
    let z2 = Z_95 * Z_95;
    let middle = (share + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = Z_95 / (1.0 + z2 / n) * (share * (1.0 - share) / n + z2 / (4.0 * n * n)).max(0.0).sqrt();
    [(middle - half).max(0.0), (middle + half).min(1.0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!([whole(0), whole(999), whole(1000), whole(2_393_568)], ["0", "999", "1,000", "2,393,568"]);
        assert_eq!([compact(2.4e6), compact(0.25), compact(0.0), compact(2e-5)], ["2.4 M", "0.25", "0", "2e-5"]);
        assert_eq!([short(-0.000_01), short(90.0), short(0.5)], ["0", "90", "0.5"]);
        assert_eq!([bytes(12), bytes(130_100), bytes(2_500_000)], ["12 B", "130.1 kB", "2.5 MB"]);
        assert_eq!([seconds(257.3), seconds(3.0), seconds(9000.0)], ["4 min 17 s", "3.0 s", "2.5 h"]);
        assert_eq!((accuracy(0.874), points(-0.048)), ("87.40 %".to_owned(), "−4.80".to_owned()));
    }

    /// 81 of 263: 0.2553 to 0.3662, Newcombe (Statistics in Medicine 1998), table I, method 3.
    #[test]
    fn intervals_are_those_of_the_literature() {
        let [least, most] = wilson(81.0 / 263.0, 263);
        assert!((least - 0.2553).abs() < 5e-5 && (most - 0.3662).abs() < 5e-5, "{least} {most}");
        let [least, most] = wilson(0.0, 20);
        assert!(least == 0.0 && (most - 0.1611).abs() < 5e-5, "{least} {most}");
    }
}

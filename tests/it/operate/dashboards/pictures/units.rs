//! Numbers as Grafana writes them: a few digits and a unit that fits; and the marks of an axis.

/// Significant digits of a number.
const DIGITS: i32 = 3;
/// About as many marks stand on an axis.
const MARKS: f64 = 4.0;
/// One mark after the other is so many times a power of ten.
const STEPS: [f64; 4] = [1.0, 2.0, 5.0, 10.0];

/// A value in a unit of the dashboards.
pub fn shown(value: f64, unit: &str) -> String {
    match unit {
        "s" => {
            in_steps(value, &[(1e-9, "ns"), (1e-6, "µs"), (1e-3, "ms"), (1.0, "s"), (60.0, "min"), (3600.0, "hours")])
        }
        "bytes" => {
            let binary = |power: i32| 1024_f64.powi(power);
            in_steps(value, &[(1.0, "B"), (binary(1), "KiB"), (binary(2), "MiB"), (binary(3), "GiB")])
        }
        "ops" => format!("{} ops/s", in_steps(value, &[(1.0, ""), (1e3, "K"), (1e6, "Mil")])),
        _ => in_steps(value, &[(1.0, ""), (1e3, "K"), (1e6, "Mil")]),
    }
}

/// The number in the largest unit of which it is at least one.
fn in_steps(value: f64, units: &[(f64, &str)]) -> String {
    let fitting = units.iter().rev().find(|(size, _)| value.abs() >= *size);
    // Below the smallest of those without a name, digits say it; nothing has no fraction.
    let whole = units.iter().find(|(size, _)| *size >= 1.0).unwrap_or(&units[0]);
    let (size, name) = fitting.unwrap_or(if value == 0.0 { whole } else { &units[0] });
    format!("{} {name}", digits(value / size)).trim_end().to_owned()
}

fn digits(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let before = value.abs().log10().floor() as i32 + 1;
    let text = format!("{value:.*}", usize::try_from((DIGITS - before).clamp(0, 6)).unwrap_or_default());
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Where an axis from nothing to at least this much has its marks; the last one is its end.
pub fn marks(most: f64, unit: &str) -> Vec<f64> {
    let most = if most > 0.0 { most } else { 1.0 };
    let scale = if unit == "bytes" { 1024_f64.powf(most.log(1024.0).floor()) } else { 1.0 };
    let rough = most / scale / MARKS;
    let power = 10_f64.powf(rough.log10().floor());
    let step = STEPS.iter().map(|step| step * power).find(|step| *step >= rough * 0.999).unwrap_or(rough) * scale;
    let count = (most / step).ceil().max(1.0) as u32;
    (0..=count).map(|number| f64::from(number) * step).collect()
}

#[test]
fn numbers_are_short_and_have_the_unit_that_fits() {
    for (value, unit, wanted) in [
        (0.0, "s", "0 s"),
        (0.000_25, "s", "250 µs"),
        (0.0123, "s", "12.3 ms"),
        (90.0, "s", "1.5 min"),
        (23.4 * 1024.0 * 1024.0, "bytes", "23.4 MiB"),
        (0.0, "bytes", "0 B"),
        (1234.0, "short", "1.23 K"),
        (0.05, "ops", "0.05 ops/s"),
        (7.0, "short", "7"),
    ] {
        assert_eq!(shown(value, unit), wanted);
    }
}

#[test]
fn an_axis_ends_above_the_largest_value_and_has_few_marks() {
    assert_eq!(marks(7.0, "short"), [0.0, 2.0, 4.0, 6.0, 8.0]);
    assert_eq!(marks(0.0, "short").last(), Some(&1.0));
    for most in [0.000_31, 0.9, 1.0, 12.0, 999.0, 5e7] {
        for unit in ["short", "bytes", "s"] {
            let marks = marks(most, unit);
            assert!(marks.len() <= 6 && marks[marks.len() - 1] >= most, "{most} {unit}: {marks:?}");
        }
    }
}

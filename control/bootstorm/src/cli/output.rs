//! What commands print on standard output: a table for people, JSON or YAML for programs, names for shells.

use clap::ValueEnum;
use comfy_table::{Table, TableStyle};
use serde::Serialize;

/// Form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// JSON, as the API gives it.
    Json,
    /// YAML.
    Yaml,
    /// Names only, one a line.
    Name,
}

/// Something with rows.
pub trait Rows: Serialize {
    /// Titles of the columns.
    const COLUMNS: &'static [&'static str];
    /// The cells of one row.
    fn cells(&self) -> Vec<String>;
    /// Its name, for `-o name`.
    fn name(&self) -> String;
}

/// Prints a list.
pub fn list<T: Rows>(format: Format, items: &[T]) {
    match format {
        Format::Table => println!("{}", table(items)),
        Format::Name => items.iter().for_each(|item| println!("{}", item.name())),
        Format::Json | Format::Yaml => value(format, &items),
    }
}

/// Prints one thing.
pub fn one<T: Rows>(format: Format, item: &T) {
    match format {
        Format::Table | Format::Name => list(format, std::slice::from_ref(item)),
        Format::Json | Format::Yaml => value(format, item),
    }
}

/// Prints any value as JSON or YAML; JSON where the format is for rows.
pub fn value<T: Serialize>(format: Format, item: &T) {
    let text = match format {
        Format::Yaml => serde_saphyr::to_string(item).map_err(|e| e.to_string()),
        Format::Table | Format::Json | Format::Name => serde_json::to_string_pretty(item).map_err(|e| e.to_string()),
    };
    match text {
        Ok(text) => println!("{}", text.trim_end()),
        Err(error) => eprintln!("cannot print the answer: {error}"),
    }
}

fn table<T: Rows>(items: &[T]) -> Table {
    let mut table = Table::new();
    table.load_style(TableStyle::new());
    table.set_header(T::COLUMNS.iter().map(|c| c.to_uppercase()));
    for item in items {
        table.add_row(item.cells());
    }
    table
}

/// Bytes for people.
pub fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}

/// A moment (milliseconds since 1970) as UTC, e.g. `2026-11-23T02:00:01Z`.
pub fn moment(unix_ms: i64) -> String {
    let Ok(at) = time::OffsetDateTime::from_unix_timestamp(unix_ms.div_euclid(1000)) else { return "?".into() };
    let (date, clock) = (at.date(), at.time());
    let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", clock.hour(), clock.minute(), clock.second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_utc() {
        for (unix_ms, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399_000, "2000-02-28T23:59:59Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (1_795_399_200_000, "2026-11-23T02:00:00Z"),
        ] {
            assert_eq!(moment(unix_ms), text);
        }
    }
}

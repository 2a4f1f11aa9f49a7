//! Drawing: scales with round ticks, and the few shapes that the plots need. Coordinates are those of the view box.

use std::fmt::{self, Write};

/// Text with the characters that mean something in HTML and SVG replaced; fit for elements and quoted attributes.
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// How values become places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Equal differences are equally far apart.
    Linear,
    /// Equal ratios are.
    Logarithmic,
}

/// A direction of a plot: values from `least` to `greatest` lie between the places `from` and `to`.
#[derive(Clone, Copy, Debug)]
pub struct Axis {
    least: f64,
    greatest: f64,
    from: f64,
    to: f64,
    scale: Scale,
}

impl Axis {
    /// From zero to at least `greatest`, up to the next tick.
    pub fn from_zero(greatest: f64, from: f64, to: f64) -> Axis {
        let step = step(greatest);
        let greatest = (greatest / step).ceil().max(1.0) * step;
        Axis { least: 0.0, greatest, from, to, scale: Scale::Linear }
    }

    /// Whole decades around these positive values.
    pub fn decades(least: f64, greatest: f64, from: f64, to: f64) -> Axis {
        let least = 10f64.powf(least.max(1e-9).log10().floor());
        let greatest = 10f64.powf(greatest.max(least * 1.001).log10().ceil());
        Axis { least, greatest, from, to, scale: Scale::Logarithmic }
    }

    /// Place of a value, kept inside.
    pub fn place(&self, value: f64) -> f64 {
        let value = value.clamp(self.least, self.greatest);
        let part = match self.scale {
            Scale::Linear => (value - self.least) / (self.greatest - self.least),
            Scale::Logarithmic => (value / self.least).log10() / (self.greatest / self.least).log10(),
        };
        self.from + part * (self.to - self.from)
    }

    /// Round values to be labelled.
    pub fn ticks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                let step = step(self.greatest);
                (0..=(self.greatest / step).round() as u32).map(|count| f64::from(count) * step).collect()
            }
            Scale::Logarithmic => {
                let decades = (self.greatest / self.least).log10().round() as i32;
                (0..=decades).map(|decade| self.least * 10f64.powi(decade)).collect()
            }
        }
    }
}

/// 1, 2 or 5 times a power of ten: some five to ten of it make `greatest`.
fn step(greatest: f64) -> f64 {
    let rough = greatest.max(1e-9) / 8.0;
    let decade = 10f64.powf(rough.log10().floor());
    let rounded = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * decade >= rough);
    rounded.unwrap_or(10.0) * decade
}

/// A number as a label: no digit that says nothing.
pub fn label(value: f64) -> String {
    let text = match value.abs() {
        1e3.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    };
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// A time in seconds with the unit that suits it.
pub fn time_label(seconds: f64) -> String {
    match seconds {
        ..1e-6 => format!("{} ns", label(seconds * 1e9)),
        ..1e-3 => format!("{} µs", label(seconds * 1e6)),
        ..1.0 => format!("{} ms", label(seconds * 1e3)),
        _ => format!("{} s", label(seconds)),
    }
}

/// Where text is anchored.
#[derive(Clone, Copy, Debug)]
pub enum Anchor {
    /// It begins here.
    Start,
    /// It is centred here.
    Middle,
    /// It ends here.
    End,
}

/// An SVG element that is being written.
pub struct Drawing {
    text: String,
}

impl Drawing {
    /// An empty one; `description` is read to who cannot see it.
    pub fn new(width: f64, height: f64, description: &str) -> Drawing {
        let description = Escaped(description);
        let text = format!("<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{description}\">\n");
        Drawing { text }
    }

    /// A rectangle of a class, with a tooltip.
    pub fn bar(&mut self, class: &str, [x, y, width, height]: [f64; 4], tooltip: &str) {
        let tooltip = Escaped(tooltip);
        // So narrow a bar would not be seen.
        let width = width.max(0.7);
        let _ = writeln!(
            self.text,
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"><title>{tooltip}</title></rect>"
        );
    }

    /// A straight line of a class.
    pub fn line(&mut self, class: &str, [x1, y1, x2, y2]: [f64; 4]) {
        let _ = writeln!(
            self.text,
            "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
        );
    }

    /// A closed shape of a class, with a tooltip.
    pub fn area(&mut self, class: &str, points: impl Iterator<Item = (f64, f64)>, tooltip: &str) {
        let _ = write!(self.text, "<polygon class=\"{class}\" points=\"");
        for (x, y) in points {
            let _ = write!(self.text, "{x:.1},{y:.1} ");
        }
        let _ = writeln!(self.text, "\"><title>{}</title></polygon>", Escaped(tooltip));
    }

    /// Words.
    pub fn words(&mut self, class: &str, (x, y): (f64, f64), anchor: Anchor, words: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let words = Escaped(words);
        let _ = writeln!(
            self.text,
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>"
        );
    }

    /// Ticks below, with lines up to `top`, and the axis' title.
    pub fn axis_below(&mut self, axis: &Axis, (top, bottom): (f64, f64), title: &str, label: impl Fn(f64) -> String) {
        for tick in axis.ticks() {
            let x = axis.place(tick);
            self.line("grid", [x, top, x, bottom]);
            self.words("tick", (x, bottom + 14.0), Anchor::Middle, &label(tick));
        }
        self.words("title", (f64::midpoint(axis.from, axis.to), bottom + 31.0), Anchor::Middle, title);
    }

    /// Ticks to the left, with lines to `right`; the title stands above.
    pub fn axis_left(&mut self, axis: &Axis, (left, right): (f64, f64), title: &str) {
        for tick in axis.ticks() {
            let y = axis.place(tick);
            self.line("grid", [left, y, right, y]);
            self.words("tick", (left - 6.0, y + 4.0), Anchor::End, &label(tick));
        }
        self.words("title", (left, axis.to.min(axis.from) - 8.0), Anchor::Middle, title);
    }

    /// The element.
    pub fn finish(mut self) -> String {
        self.text.push_str("</svg>\n");
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_few_and_reach_beyond_the_greatest() {
        for greatest in [0.003, 0.9, 1.0, 7.0, 12.0, 99.0, 101.0, 48_000.0] {
            let axis = Axis::from_zero(greatest, 0.0, 100.0);
            let ticks = axis.ticks();
            assert!((3..=11).contains(&ticks.len()), "{greatest}: {ticks:?}");
            assert!(axis.place(greatest) <= 100.0 && ticks.last().is_some_and(|last| *last >= greatest * 0.999));
        }
        assert_eq!(Axis::from_zero(0.0, 0.0, 100.0).place(0.0), 0.0);
        assert_eq!(Axis::decades(0.002, 30.0, 0.0, 100.0).ticks().len(), 6);
    }

    #[test]
    fn a_logarithmic_axis_spaces_ratios_evenly_and_can_run_backwards() {
        let axis = Axis::decades(1.0, 100.0, 100.0, 0.0);
        let places = [1.0, 10.0, 100.0, 1e9].map(|value| axis.place(value).round());
        assert_eq!(places, [100.0, 50.0, 0.0, 0.0]);
    }

    #[test]
    fn labels_have_units_and_no_idle_digits() {
        assert_eq!([0.5, 20.0, 1500.0, 0.0].map(label), ["0.5", "20", "1500", "0"]);
        assert_eq!([1e-7, 2e-5, 0.01, 3.0].map(time_label), ["100 ns", "20 µs", "10 ms", "3 s"]);
    }

    #[test]
    fn nothing_breaks_out_of_text_or_attributes() {
        assert_eq!(Escaped("<a b=\"c\">&'").to_string(), "&lt;a b=&quot;c&quot;&gt;&amp;&#39;");
    }
}

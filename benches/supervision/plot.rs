//! A cost curve as a CSV file and as a picture.

use std::fmt::Write as _;
use std::path::Path;

/// What is plotted: cost over how many there are, for each side.
pub(crate) struct Curve {
    /// Of both files.
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) x: &'static str,
    pub(crate) y: &'static str,
    pub(crate) series: Vec<&'static str>,
    /// A point on the x axis, and the value of each side there.
    pub(crate) points: Vec<(usize, Vec<f64>)>,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 60.0;
const COLOURS: [&str; 4] = ["#777777", "#1f5fa8", "#b03a2e", "#2e7d32"];

impl Curve {
    /// Writes `name.csv` and `name.svg` into `folder`.
    pub(crate) fn write(&self, folder: &Path) {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join(self.name).with_extension("csv"), self.csv()).unwrap();
        std::fs::write(folder.join(self.name).with_extension("svg"), self.svg()).unwrap();
    }

    fn csv(&self) -> String {
        let mut csv = self.x.to_owned();
        for series in &self.series {
            let _ = write!(csv, ",{series} ({})", self.y);
        }
        csv.push('\n');
        for (x, values) in &self.points {
            let _ = write!(csv, "{x}");
            for value in values {
                let _ = write!(csv, ",{value:.3}");
            }
            csv.push('\n');
        }
        csv
    }

    fn svg(&self) -> String {
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"12\" fill=\"#222222\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n"
        );
        let middle = f64::midpoint(LEFT, WIDTH - RIGHT);
        text(&mut svg, middle, 22.0, "middle", &format!("<tspan font-size=\"15\">{}</tspan>", self.title));
        text(&mut svg, middle, HEIGHT - 12.0, "middle", &format!("{} (logarithmic)", self.x));
        let _ = writeln!(
            svg,
            "<text transform=\"translate(16 {}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            f64::midpoint(TOP, HEIGHT - BOTTOM),
            self.y
        );
        self.grid(&mut svg);
        for index in 0..self.series.len() {
            self.line(&mut svg, index);
        }
        svg.push_str("</svg>\n");
        svg
    }

    /// Both axes, with a mark at every point and at every step.
    fn grid(&self, svg: &mut String) {
        for (x, _) in &self.points {
            let at = self.x_of(*x);
            rule(svg, (at, TOP), (at, HEIGHT - BOTTOM));
            text(svg, at, HEIGHT - BOTTOM + 18.0, "middle", &grouped(*x));
        }
        let (step, steps) = self.steps();
        for mark in 0..=steps {
            let value = step * mark as f64;
            let at = self.y_of(value);
            rule(svg, (LEFT, at), (WIDTH - RIGHT, at));
            text(svg, LEFT - 8.0, at + 4.0, "end", &label(value));
        }
    }

    fn line(&self, svg: &mut String, index: usize) {
        let colour = COLOURS[index % COLOURS.len()];
        let mut path = String::new();
        for (x, values) in &self.points {
            let (x, y) = (self.x_of(*x), self.y_of(values[index]));
            let _ = write!(path, "{x:.1},{y:.1} ");
            let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
        }
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path.trim_end()
        );
        let (x, y) = (LEFT + 12.0, TOP + 16.0 + 18.0 * index as f64);
        let _ =
            writeln!(svg, "<rect x=\"{x}\" y=\"{}\" width=\"14\" height=\"4\" fill=\"{colour}\"/>", y - 6.0);
        text(svg, x + 20.0, y, "start", self.series[index]);
    }

    fn x_of(&self, x: usize) -> f64 {
        let last = self.points.last().map_or(1, |(x, _)| *x).max(2);
        LEFT + (WIDTH - LEFT - RIGHT) * (x as f64).ln() / (last as f64).ln()
    }

    fn y_of(&self, y: f64) -> f64 {
        let (step, steps) = self.steps();
        HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * y / (step * steps as f64)
    }

    /// A round step from zero, and how many of them hold every value.
    fn steps(&self) -> (f64, usize) {
        let highest = self.points.iter().flat_map(|(_, values)| values).copied().fold(1e-9, f64::max);
        let power = 10_f64.powf((highest / 5.0).log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
        let step = step.into_iter().find(|step| *step * 5.0 >= highest).unwrap_or(highest);
        let mut steps = 1;
        while step * (steps as f64) < highest {
            steps += 1;
        }
        (step, steps)
    }
}

fn rule(svg: &mut String, from: (f64, f64), to: (f64, f64)) {
    let _ = writeln!(
        svg,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"#dddddd\"/>",
        from.0, from.1, to.0, to.1
    );
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
}

/// With a comma before every three digits.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn label(value: f64) -> String {
    if value >= 10.0 || value == 0.0 { format!("{value:.0}") } else { format!("{value}") }
}

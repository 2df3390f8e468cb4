//! The beginning of a text that may be of any length: for records that are kept.

use std::fmt::{self, Display, Write};

/// The longest excerpt of an error or of a panic's message that records keep, in bytes.
pub const MAX_REASON_BYTES: usize = 1024;

/// The first `max_bytes` of `text`, cut at a character's border. What is longer ends in `...`, which is not counted.
#[must_use]
pub fn excerpt(text: &(impl Display + ?Sized), max_bytes: usize) -> String {
    let mut cut = Cut { text: String::new(), max_bytes };
    if write!(cut, "{text}").is_err() {
        // The text is longer, or fails half-way: the reader is told that it goes on.
        cut.text.push_str("...");
    }
    cut.text
}

/// Takes what has room and then refuses, so that nothing longer is ever allocated.
struct Cut {
    text: String,
    max_bytes: usize,
}

impl Write for Cut {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let room = self.max_bytes - self.text.len();
        if part.len() <= room {
            self.text.push_str(part);
            return Ok(());
        }
        let border = (0..=room).rev().find(|at| part.is_char_boundary(*at)).unwrap_or(0);
        self.text.push_str(&part[..border]);
        Err(fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_fits_is_whole_and_a_longer_one_is_cut_at_a_border() {
        assert_eq!(excerpt("panic", 5), "panic");
        assert_eq!(excerpt("panicked", 5), "panic...");
        assert_eq!(excerpt("\u{e9}\u{e9}", 3), "\u{e9}...");
        assert_eq!(excerpt(&format_args!("{}{}", "ab", "cd"), 3), "abc...");
        assert_eq!(excerpt("x", 0), "...");
    }
}

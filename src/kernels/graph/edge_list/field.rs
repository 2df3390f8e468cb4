//! One line of an edge list.

use super::error::{EdgeListError, IdFault};

/// The edge in `bytes`, line number `line`; `None` for a comment or an empty line.
pub(super) fn edge(bytes: &[u8], line: u64) -> Result<Option<(u64, u64)>, EdgeListError> {
    let first = bytes.iter().find(|byte| !is_separator(**byte));
    if matches!(first, None | Some(b'#' | b'%')) {
        return Ok(None);
    }
    if let Some(at) = bytes.iter().position(|byte| !is_separator(*byte) && !byte.is_ascii_graphic()) {
        return Err(EdgeListError::Binary { line, column: at + 1, byte: bytes[at] });
    }
    let mut fields = Fields { bytes, at: 0 };
    let (from, to, weight) = match (fields.next(), fields.next(), fields.next(), fields.next()) {
        (Some(from), Some(to), weight, None) => (from, to, weight),
        (.., Some(_)) => return Err(EdgeListError::Columns { line, found: 4 + fields.count() }),
        _ => return Err(EdgeListError::Columns { line, found: 1 }),
    };
    let edge = (id(from, line)?, id(to, line)?);
    if let Some((column, text)) = weight.filter(|(_, text)| !is_finite_number(text)) {
        return Err(EdgeListError::Weight { line, column, text: excerpt(text) });
    }
    Ok(Some(edge))
}

/// The fields of a line, each with its column.
struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Fields<'a> {
    type Item = (usize, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = &self.bytes[self.at..];
        let blank = rest.iter().position(|byte| !is_separator(*byte))?;
        let field = &rest[blank..];
        let length = field.iter().position(|byte| is_separator(*byte)).unwrap_or(field.len());
        let column = self.at + blank + 1;
        self.at += blank + length;
        Some((column, &field[..length]))
    }
}

fn id((column, text): (usize, &[u8]), line: u64) -> Result<u64, EdgeListError> {
    parse_id(text).map_err(|fault| EdgeListError::Id { line, column, fault, text: excerpt(text) })
}

fn parse_id(text: &[u8]) -> Result<u64, IdFault> {
    let (negative, digits) = text.strip_prefix(b"-").map_or((false, text), |digits| (true, digits));
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(IdFault::NotAnInteger);
    }
    if negative {
        return Err(IdFault::Negative);
    }
    digits
        .iter()
        .try_fold(0_u64, |id, digit| id.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
        .filter(|id| *id <= MAX_ID)
        .ok_or(IdFault::TooLarge)
}

fn is_finite_number(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| text.parse::<f64>().is_ok_and(f64::is_finite))
}

fn is_separator(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn excerpt(text: &[u8]) -> Box<str> {
    text[..text.len().min(EXCERPT_BYTES)].escape_ascii().to_string().into()
}

const MAX_ID: u64 = i64::MAX as u64;
const EXCERPT_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_comments_and_blanks() {
        assert_eq!(edge(b"1\t2", 1).unwrap(), Some((1, 2)));
        assert_eq!(edge(b"  0  \t 9223372036854775807 ", 1).unwrap(), Some((0, MAX_ID)));
        assert_eq!(edge(b"007 2 -1.5e3", 1).unwrap(), Some((7, 2)));
        for nothing in [&b""[..], b" \t ", b"# \xff\x00 anything", b"% matrix market", b"  # indented"] {
            assert_eq!(edge(nothing, 1).unwrap(), None);
        }
    }

    #[test]
    fn each_fault_names_its_place() {
        let said = |bytes: &[u8]| edge(bytes, 7).unwrap_err().to_string();
        assert_eq!(said(b"5"), "line 7: 1 columns, where an edge has two, or three with a weight");
        assert_eq!(said(b"1 2 3 4 5"), "line 7: 5 columns, where an edge has two, or three with a weight");
        assert_eq!(said(b"1 \x002"), "line 7, column 3: byte 0x00 is no text of an edge list");
        assert_eq!(said(b"1 2.0"), "line 7, column 3: `2.0` is no node id: it is not a decimal integer");
        assert_eq!(said(b"NaN 2"), "line 7, column 1: `NaN` is no node id: it is not a decimal integer");
        assert_eq!(said(b"1 --2"), "line 7, column 3: `--2` is no node id: it is not a decimal integer");
        assert_eq!(said(b"1\t-2"), "line 7, column 3: `-2` is no node id: it is negative");
        assert_eq!(
            said(b"9223372036854775808 2"),
            "line 7, column 1: `9223372036854775808` is no node id: it is larger than 2^63 - 1"
        );
        assert_eq!(said(b"1 2 nan"), "line 7, column 5: `nan` is no finite weight");
        assert_eq!(said(b"1 2 1e999"), "line 7, column 5: `1e999` is no finite weight");
    }
}

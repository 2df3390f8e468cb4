//! Edge lists through the public API: what is read, what is refused, and where the refusal points.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

use std::io::{BufRead, BufReader, Read, Write};
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;

use rustkernel::core::clock::{Clock, Timestamp};
use rustkernel::core::envelope::Header;
use rustkernel::core::error::{KernelErrorKind, RetryAdvice};
use rustkernel::core::resilience::{Classify, ErrorKind};
use rustkernel::core::traits::{Context, Kernel, Payload};
use rustkernel::core::{KernelError, codec};
use rustkernel::kernels::graph::edge_list::IdFault;
use rustkernel::kernels::graph::{
    EdgeListError, EdgeListLimits, EdgeListSource, Graph, GraphError, Load, read_edge_list,
};

fn read(bytes: &[u8]) -> Result<Graph, EdgeListError> {
    read_edge_list(bytes, &EdgeListLimits::default())
}

fn refused(bytes: &[u8]) -> EdgeListError {
    read(bytes).expect_err("the list is refused")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn block_on<F: Future>(work: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

fn load(source: &EdgeListSource) -> Result<Graph, KernelError> {
    block_on(Load::default().execute(source, &mut Context::detached()))
}

/// A reader of the same bytes again and again, which counts what is taken from it.
struct Endless<'a> {
    pattern: &'static [u8],
    at: usize,
    taken: &'a mut u64,
}

impl Read for Endless<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let read = self.fill_buf()?.read(into)?;
        self.consume(read);
        Ok(read)
    }
}

impl BufRead for Endless<'_> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        Ok(&self.pattern[self.at..])
    }

    fn consume(&mut self, amount: usize) {
        *self.taken += amount as u64;
        self.at = (self.at + amount) % self.pattern.len();
    }
}

#[test]
fn snap_style_lists_are_read_with_any_line_end() {
    let unix = "# Directed graph\n% and this\n\n30\t10\n10 20\n  20   30  \n10 20\n20 20\n";
    let graph = read(unix.as_bytes()).unwrap();
    assert_eq!(graph.ids(), [10, 20, 30]);
    assert_eq!(graph.edge_count(), 4, "the repeated edge counts once, the loop counts");
    let dos = unix.replace('\n', "\r\n");
    assert_eq!(read(dos.as_bytes()).unwrap(), graph);
    assert_eq!(read(unix.trim_end().as_bytes()).unwrap(), graph, "the last line needs no end");
    assert_eq!(read(&gzip(unix.as_bytes())).unwrap(), graph);
    let members = [gzip(b"30 10\n10 20\n2"), gzip(b"0 30\n20 20\n")].concat();
    assert_eq!(read(&members).unwrap(), graph, "gzip members are one list");
}

#[test]
fn a_finite_third_column_is_ignored_and_another_one_refused() {
    assert_eq!(read(b"1 2 0.5\n2 1 -3e7\n").unwrap(), read(b"1 2\n2 1\n").unwrap());
    for weight in ["nan", "inf", "1e999", "heavy"] {
        let error = refused(format!("1 2\n2 1 {weight}\n").as_bytes());
        assert!(matches!(error, EdgeListError::Weight { line: 2, column: 5, .. }), "{error}");
    }
}

#[test]
fn ids_outside_the_range_are_refused_with_line_and_column() {
    let faults = [
        ("-1", IdFault::Negative),
        ("-0", IdFault::Negative),
        ("9223372036854775808", IdFault::TooLarge),
        ("18446744073709551615", IdFault::TooLarge),
        ("18446744073709551616", IdFault::TooLarge),
        ("99999999999999999999999999999999999999999999999999", IdFault::TooLarge),
        ("NaN", IdFault::NotAnInteger),
        ("1.5", IdFault::NotAnInteger),
        ("1e3", IdFault::NotAnInteger),
        ("+1", IdFault::NotAnInteger),
        ("0x10", IdFault::NotAnInteger),
        ("libc6", IdFault::NotAnInteger),
    ];
    for (id, expected) in faults {
        let error = refused(format!("# ids\n1 2\n7\t{id}\n").as_bytes());
        let EdgeListError::Id { line: 3, column: 3, fault, text } = error else { panic!("{id}: {error}") };
        assert_eq!(fault, expected, "{id}");
        assert!(id.starts_with(&*text) && text.len() <= 32);
    }
    let graph = read(b"9223372036854775807 0\n").unwrap();
    assert_eq!(graph.ids(), [0, i64::MAX as u64], "the largest id of SNAP's range is an id");
}

#[test]
fn the_wrong_number_of_columns_is_refused() {
    assert!(matches!(refused(b"1 2\n3\n"), EdgeListError::Columns { line: 2, found: 1 }));
    assert!(matches!(refused(b"1 2\n3 4 5 6\n"), EdgeListError::Columns { line: 2, found: 4 }));
}

#[test]
fn a_list_without_an_edge_is_refused() {
    assert!(matches!(refused(b""), EdgeListError::Empty { lines: 0 }));
    assert!(matches!(refused(b"# only\n% comments\n\n"), EdgeListError::Empty { lines: 3 }));
    assert!(matches!(refused(&gzip(b"")), EdgeListError::Empty { lines: 0 }));
}

#[test]
fn binary_files_are_refused_at_their_first_strange_byte() {
    assert!(matches!(refused(b"1 2\n3 \x00\n"), EdgeListError::Binary { line: 2, column: 3, byte: 0 }));
    assert!(matches!(refused(b"\x7fELF\x02\x01"), EdgeListError::Binary { line: 1, column: 1, byte: 0x7f }));
    assert!(matches!(refused(b"\xff\xfe1\x00"), EdgeListError::Binary { line: 1, column: 1, byte: 0xff }));
    assert!(matches!(refused(b"1 2\r3 4\n"), EdgeListError::Binary { line: 1, column: 4, byte: b'\r' }));
    assert!(matches!(refused(b"\x1f"), EdgeListError::Binary { line: 1, column: 1, byte: 0x1f }));
}

#[test]
fn a_line_without_an_end_is_refused_after_the_limit() {
    for pattern in [&b"7"[..], b"#", b"12345678 "] {
        let mut taken = 0;
        let error = read_edge_list(Endless { pattern, at: 0, taken: &mut taken }, &EdgeListLimits::default());
        assert!(matches!(error, Err(EdgeListError::LineTooLong { line: 1, limit_bytes: 4096 })), "{error:?}");
        assert!(taken <= 4096 + 2, "{taken} bytes were taken");
    }
}

#[test]
fn an_endless_list_is_refused_at_the_byte_limit_and_at_the_edge_limit() {
    let limits = EdgeListLimits { max_bytes: 10_000, ..EdgeListLimits::default() };
    let mut taken = 0;
    let error = read_edge_list(Endless { pattern: b"1 2\n", at: 0, taken: &mut taken }, &limits);
    assert!(
        matches!(error, Err(EdgeListError::TooManyBytes { line: 2501, limit_bytes: 10_000 })),
        "{error:?}"
    );
    assert_eq!(taken, 10_000);
    let limits = EdgeListLimits { max_edges: 5, ..EdgeListLimits::default() };
    let error = read_edge_list(Endless { pattern: b"1 2\n", at: 0, taken: &mut taken }, &limits);
    assert!(matches!(error, Err(EdgeListError::TooManyEdges { line: 6, limit: 5 })), "{error:?}");
}

#[test]
fn a_list_of_exactly_the_limit_is_read() {
    let list = b"1 2\n3 4\n";
    let limits = EdgeListLimits { max_line_bytes: 3, max_bytes: 8, max_edges: 2, max_nodes: 4 };
    assert_eq!(read_edge_list(&list[..], &limits).unwrap().node_count(), 4);
    let fewer = EdgeListLimits { max_nodes: 3, ..limits };
    let error = read_edge_list(&list[..], &fewer).unwrap_err();
    let EdgeListError::Graph { lines: 2, source } = error else { panic!("{error}") };
    assert_eq!(source, GraphError::TooManyNodes { found: 4, limit: 3 });
}

#[test]
fn truncated_and_damaged_gzip_is_refused() {
    let list: String = (0..2000_u64).map(|id| format!("{id} {}\n", id * 7919 % 2000)).collect();
    let whole = gzip(list.as_bytes());
    for cut in [2, 5, 9, 10, 11, whole.len() / 2, whole.len() - 8, whole.len() - 1] {
        let error = refused(&whole[..cut]);
        assert!(matches!(error, EdgeListError::Gzip { line: 1.., .. }), "cut at {cut}: {error}");
    }
    let mut damaged = whole.clone();
    let last = damaged.len() - 6;
    damaged[last] ^= 1;
    assert!(matches!(refused(&damaged), EdgeListError::Gzip { line: 2001, .. }), "the checksum is checked");
    let trailing = [&whole[..], b"trailing"].concat();
    assert!(matches!(refused(&trailing), EdgeListError::Gzip { line: 2001, .. }));
}

#[test]
fn a_gzip_bomb_is_refused_at_the_byte_limit() {
    let bomb = gzip(&b"# 0123456789 0123456789 0123456789 0123456789\n".repeat(400_000));
    assert!(bomb.len() < 100_000, "{} bytes become 18 million", bomb.len());
    let limits = EdgeListLimits { max_bytes: 1 << 20, ..EdgeListLimits::default() };
    let error = read_edge_list(&bomb[..], &limits).unwrap_err();
    assert!(matches!(error, EdgeListError::TooManyBytes { limit_bytes: 1_048_576, line: 2.. }), "{error}");
    let one_line = gzip(&vec![b'1'; 16 << 20]);
    assert!(matches!(refused(&one_line), EdgeListError::LineTooLong { line: 1, .. }));
}

#[test]
fn gzip_members_that_hold_nothing_cannot_go_on_for_ever() {
    let empty: &'static [u8] = gzip(b"").leak();
    let limits = EdgeListLimits { max_bytes: 100_000, ..EdgeListLimits::default() };
    let mut taken = 0;
    let error = read_edge_list(Endless { pattern: empty, at: 0, taken: &mut taken }, &limits).unwrap_err();
    assert!(matches!(error, EdgeListError::TooManyBytes { .. }), "{error}");
    assert!(taken <= 100_000);
}

#[test]
fn the_shipped_graph_is_the_one_its_header_describes() {
    let graph = load(&EdgeListSource::Shipped).unwrap();
    assert_eq!((graph.node_count(), graph.edge_count()), (57_842, 247_686));
    assert_eq!(graph.out_degrees().iter().filter(|degree| **degree == 0).count(), 3567);
    assert!(graph.size_bytes() > 247_686 * 4 + 57_842 * 16);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/data/debian-depends.txt.gz");
    let again = load(&EdgeListSource::Path(path.into())).unwrap();
    assert_eq!(again.fingerprint(), graph.fingerprint());
    assert_eq!(codec::decode::<Graph>(&codec::encode(&graph).unwrap()).unwrap(), graph);
}

#[test]
fn lists_come_as_text_and_as_bytes() {
    let text = load(&EdgeListSource::Text("1 2\n".into())).unwrap();
    assert_eq!(load(&EdgeListSource::Bytes(gzip(b"1 2\n").into())).unwrap(), text);
}

#[test]
fn a_refused_list_is_invalid_input_and_says_where() {
    let error = load(&EdgeListSource::Text("1 2\n3 x\n".into())).unwrap_err();
    assert_eq!(error.error_kind(), ErrorKind::InvalidInput);
    let expected =
        "the request's edge list: line 2, column 3: `x` is no node id: it is not a decimal integer";
    assert!(error.to_string().ends_with(expected), "{error}");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let error = load(&EdgeListSource::Path(path.into())).unwrap_err();
    assert_eq!(error.error_kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("Cargo.toml: line 1"), "{error}");
}

#[test]
fn a_file_that_cannot_be_a_list_is_invalid_input_and_is_named() {
    for path in ["no/such/graph.txt", env!("CARGO_MANIFEST_DIR"), "nul\0byte"] {
        let error = load(&EdgeListSource::Path(path.into())).unwrap_err();
        assert_eq!(error.error_kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().contains(path), "{error}");
    }
}

#[test]
fn a_reader_that_fails_is_reported_with_its_line() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _into: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::from(std::io::ErrorKind::TimedOut))
        }
    }
    let input = BufReader::new(b"1 2\n3 4\n".chain(Broken));
    let error = read_edge_list(input, &EdgeListLimits::default()).unwrap_err();
    let EdgeListError::Read { line: 3, source } = error else { panic!("{error}") };
    assert_eq!(source.kind(), std::io::ErrorKind::TimedOut);
}

#[test]
fn nobody_waits_so_nothing_is_read() {
    let (clock, _hands) = Clock::manual();
    let stop = rustkernel::core::traits::Signal::new();
    stop.raise();
    let mut cx = Context::new(Header::new(1, Timestamp::NEVER), 1, &clock, [&stop; 2]);
    let error = block_on(Load::default().execute(&EdgeListSource::Shipped, &mut cx)).unwrap_err();
    assert_eq!(error.kind(), &KernelErrorKind::Cancelled);
    assert_eq!(error.retry_advice(), RetryAdvice::Never);
    let stop = rustkernel::core::traits::Signal::new();
    let mut cx = Context::new(Header::new(1, Timestamp::ZERO), 1, &clock, [&stop; 2]);
    let error = block_on(Load::default().execute(&EdgeListSource::Shipped, &mut cx)).unwrap_err();
    assert_eq!(error.kind(), &KernelErrorKind::DeadlineExceeded);
}

#[test]
fn limits_that_do_not_exist_are_refused() {
    let limits: EdgeListLimits = serde_json::from_str(r#"{"max_edges": 9}"#).unwrap();
    assert_eq!(limits, EdgeListLimits { max_edges: 9, ..EdgeListLimits::default() });
    assert!(serde_json::from_str::<EdgeListLimits>(r#"{"max_egdes": 9}"#).is_err());
}

/// Bytes that look like an edge list often enough to get past the first field.
fn nearly_a_list() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => any::<u64>().prop_map(|id| id.to_string().into_bytes()),
        4 => prop::sample::select(vec![&b" "[..], b"\t", b"\n", b"\r\n", b"#", b"-", b".", b"nan"]).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 0..6),
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = read(&bytes);
        let _ = read(&[&b"\x1f\x8b"[..], &bytes].concat());
        let _ = read(&gzip(&bytes));
    }

    #[test]
    fn near_misses_never_panic_and_plain_agrees_with_gzip(bytes in nearly_a_list()) {
        let plain = read(&bytes).map_err(|error| error.to_string());
        prop_assert_eq!(&plain, &read(&gzip(&bytes)).map_err(|error| error.to_string()));
        let slow = BufReader::with_capacity(1, &bytes[..]);
        let limits = EdgeListLimits::default();
        prop_assert_eq!(plain, read_edge_list(slow, &limits).map_err(|error| error.to_string()));
    }

    #[test]
    fn damaged_gzip_never_panics(at in 0_usize..200, bit in 0_u8..8) {
        let mut bytes = gzip(b"# a list\n1 2\n2 3\n3 4\n4 1\n");
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        let _ = read(&bytes);
    }

    #[test]
    fn generated_lists_come_back(
        edges in prop::collection::vec((0..=i64::MAX as u64, 0_u64..50), 1..80),
        separator in prop::sample::select(vec!["\t", " ", " \t "]),
        end in prop::sample::select(vec!["\n", "\r\n", "\n\n# comment\n"]),
    ) {
        let list: String = edges.iter().map(|(from, to)| format!("{from}{separator}{to}{end}")).collect();
        let graph = read(list.as_bytes()).unwrap();
        let mut expected = edges.clone();
        expected.sort_unstable_by_key(|&(from, to)| (to, from));
        expected.dedup();
        let ids = graph.ids();
        let found: Vec<(u64, u64)> = graph
            .in_edges()
            .zip(ids)
            .flat_map(|(row, to)| row.iter().map(|from| (ids[*from as usize], *to)))
            .collect();
        prop_assert_eq!(found, expected);
        prop_assert_eq!(load(&EdgeListSource::Text(Arc::from(list))).unwrap().fingerprint(), graph.fingerprint());
        prop_assert_eq!(Graph::from_edges(edges).unwrap(), graph);
    }
}

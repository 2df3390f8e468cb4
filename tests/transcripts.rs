//! The commands as people type them, and what they answer; `TRYCMD=overwrite cargo test --test transcripts` writes the answers anew.

#[path = "support/serving.rs"]
mod serving;

use serving::Serving;

const TOKEN: &str = "a-token-of-the-transcripts";

#[test]
fn the_commands_answer_as_the_transcripts_say() {
    trycmd::TestCases::new().case("tests/transcripts/*.md");
}

#[test]
fn a_request_that_is_given_up_is_shown_tried_and_forgotten() {
    let mut node = Serving::start_with(&["--inject", "panic=1", "--seed", "7"], Some(TOKEN));
    node.result();
    trycmd::TestCases::new()
        .env("RUSTKERNEL_ADDR", &node.address)
        .env("RUSTKERNEL_TOKEN", TOKEN)
        .case("tests/transcripts/letters/*.md");
}

#[test]
fn the_commands_of_a_node_answer_as_the_transcript_says() {
    let mut node = Serving::start_with(&[], Some(TOKEN));
    node.result();
    trycmd::TestCases::new()
        .env("RUSTKERNEL_ADDR", &node.address)
        .env("RUSTKERNEL_TOKEN", TOKEN)
        .case("tests/transcripts/node/*.md");
}

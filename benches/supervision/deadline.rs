//! What enforcing a deadline adds to work that is ready at once.

use std::hint::black_box;
use std::time::Duration;

use rustkernel::core::resilience::{DeadlineContext, ResilienceError};

use crate::report::{Group, Report, Target};
use crate::rounds::{Side, nanos_per};
use crate::sides::Flavour;

pub(crate) fn run(report: &mut Report) {
    if !report.wants("deadline") {
        return;
    }
    let operations = report.scale(400_000);
    let runtime = Flavour::CurrentThread.runtime();
    let clock = quanta::Clock::new();
    let deadline = DeadlineContext::new(Duration::from_secs(3600));
    report.run(Group {
        name: "deadline, ready future".into(),
        unit: "ns",
        rounds: 31,
        baseline: Side::new("await + one quanta read", || {
            nanos_per(operations, || {
                runtime.block_on(async {
                    for _ in 0..operations {
                        black_box(clock.now());
                        let _ = black_box(ready().await);
                    }
                });
            })
        }),
        contenders: vec![(
            Side::new("DeadlineContext::execute", || {
                nanos_per(operations, || {
                    runtime.block_on(async {
                        for _ in 0..operations {
                            let _ = black_box(deadline.execute(ready).await);
                        }
                    });
                })
            }),
            Target::Ratio(2.2),
        )],
    });
}

async fn ready() -> Result<u64, ResilienceError> {
    Ok(black_box(1))
}

use rustkernel_actors::{KernelSpec, Runtime};
use rustkernel_core::KernelError;
use rustkernel_core::traits::{Context, Kernel};
use std::time::Duration;

struct Double;
impl Kernel for Double {
    type Input = u64;
    type Output = u64;
    async fn execute(&mut self, input: &u64, _: &mut Context<'_>) -> Result<u64, KernelError> {
        assert!(*input != 13, "unlucky");
        Ok(input * 2)
    }
}

#[tokio::test]
async fn smoke() {
    for inline in [true, false] {
        let runtime = Runtime::builder().build().await.unwrap();
        let mut spec =
            KernelSpec::new("demo/double", || Double).recovery(rustkernel_core::resilience::RecoveryPolicy {
                restart_delay: Duration::ZERO,
                ..Default::default()
            });
        if inline {
            spec = spec.inline();
        }
        let k = runtime.spawn(spec).await.unwrap();
        assert_eq!(k.call(21, Duration::from_secs(1)).await.unwrap(), 42);
        let e = k.call(13, Duration::from_secs(1)).await.unwrap_err();
        println!("{e}");
        assert_eq!(k.call(22, Duration::from_secs(1)).await.unwrap(), 44);
        println!("{:?}", runtime.status().await);
        println!("{:?}", runtime.health());
        println!("{:?}", runtime.shutdown(Duration::from_secs(1)).await);
    }
}

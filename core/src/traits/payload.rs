//! What requests and answers carry.

use std::sync::Arc;

/// A value that can be a kernel's input or output.
///
/// `Sync` is part of it because the runtime keeps the input while an execution reads it: a hung
/// thread may still hold its reference when the next incarnation runs the same request again.
///
/// Implemented for plain data, vectors of plain data, text, tuples, options, boxes and `Arc`. For your own type, count
/// the heap bytes it keeps alive and name its schema:
///
/// ```
/// use rustkernel_core::traits::Payload;
///
/// struct Image { width: u32, pixels: Vec<u8> }
///
/// impl Payload for Image {
///     fn size_bytes(&self) -> usize {
///         size_of::<Self>() + self.pixels.capacity()
///     }
///
///     fn schema() -> String {
///         "image".into()
///     }
/// }
/// ```
pub trait Payload: Send + Sync + 'static {
    /// The bytes this value keeps alive, heap included. The slot's byte limit counts them once, at admission.
    fn size_bytes(&self) -> usize;

    /// The schema's name, for example `f32` or `[f32]`. Pipelines that are composed from a file match stages by it.
    fn schema() -> String;
}

macro_rules! plain {
    ($($type:ty),* $(,)?) => {$(
        impl Payload for $type {
            fn size_bytes(&self) -> usize {
                size_of::<Self>()
            }

            fn schema() -> String {
                stringify!($type).into()
            }
        }

        impl Payload for Vec<$type> {
            fn size_bytes(&self) -> usize {
                size_of::<Self>() + self.capacity() * size_of::<$type>()
            }

            fn schema() -> String {
                concat!("[", stringify!($type), "]").into()
            }
        }
    )*};
}

plain!(u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, f32, f64, bool, char);

impl Payload for () {
    fn size_bytes(&self) -> usize {
        0
    }

    fn schema() -> String {
        "()".into()
    }
}

impl Payload for String {
    fn size_bytes(&self) -> usize {
        size_of::<Self>() + self.capacity()
    }

    fn schema() -> String {
        "string".into()
    }
}

impl<const N: usize> Payload for [u8; N] {
    fn size_bytes(&self) -> usize {
        N
    }

    fn schema() -> String {
        format!("[u8; {N}]")
    }
}

impl<T: Payload> Payload for Option<T> {
    fn size_bytes(&self) -> usize {
        self.as_ref().map_or(size_of::<Self>(), T::size_bytes)
    }

    fn schema() -> String {
        format!("{}?", T::schema())
    }
}

impl<T: Payload> Payload for Box<T> {
    fn size_bytes(&self) -> usize {
        size_of::<Self>() + T::size_bytes(self)
    }

    fn schema() -> String {
        T::schema()
    }
}

/// The whole value is counted for every holder: it is what this request keeps alive.
impl<T: Payload> Payload for Arc<T> {
    fn size_bytes(&self) -> usize {
        size_of::<Self>() + T::size_bytes(self)
    }

    fn schema() -> String {
        T::schema()
    }
}

impl<A: Payload, B: Payload> Payload for (A, B) {
    fn size_bytes(&self) -> usize {
        self.0.size_bytes() + self.1.size_bytes()
    }

    fn schema() -> String {
        format!("({}, {})", A::schema(), B::schema())
    }
}

impl<A: Payload, B: Payload, C: Payload> Payload for (A, B, C) {
    fn size_bytes(&self) -> usize {
        self.0.size_bytes() + self.1.size_bytes() + self.2.size_bytes()
    }

    fn schema() -> String {
        format!("({}, {}, {})", A::schema(), B::schema(), C::schema())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heap_bytes_are_counted_not_only_the_handle() {
        assert!(vec![0_f64; 1000].size_bytes() >= 8000);
        assert!("x".repeat(100).size_bytes() >= 100);
        assert!(Arc::new(vec![0_u8; 4096]).size_bytes() >= 4096);
        assert_eq!((1_u32, 2_u64).size_bytes(), 12);
    }

    #[test]
    fn shared_and_boxed_values_keep_their_schema() {
        assert_eq!(<Arc<Vec<f64>>>::schema(), "[f64]");
        assert_eq!(<(u8, String)>::schema(), "(u8, string)");
    }
}

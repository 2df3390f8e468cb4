//! What requests and answers carry.

use std::sync::Arc;

use crate::error::KernelError;

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

    /// The value as it lies in memory, if it is a plain buffer: it then goes to another process as these bytes, and
    /// [`from_raw`](Self::from_raw) makes it there. Of one type always, or never. Both processes run on one machine, so that byte order and
    /// layout are the same. Default: it is not, and goes through a codec.
    fn raw(&self) -> Option<&[u8]> {
        None
    }

    /// A value of `bytes` bytes, which `fill` writes into it; `None` for types that have no [`raw`](Self::raw).
    ///
    /// # Errors
    /// A length that no such value has, or what `fill` says.
    fn from_raw(_bytes: usize, _fill: &mut Fill<'_>) -> Option<Result<Self, KernelError>>
    where
        Self: Sized,
    {
        None
    }
}

/// Writes a value's bytes into the place made for them.
pub type Fill<'a> = dyn FnMut(&mut [u8]) -> Result<(), KernelError> + 'a;

/// A buffer of plain numbers.
fn buffer<T: bytemuck::Pod>(bytes: usize, fill: &mut Fill<'_>) -> Result<Vec<T>, KernelError> {
    if !bytes.is_multiple_of(size_of::<T>()) {
        let error = format!("{bytes} bytes are no whole number of {}", std::any::type_name::<T>());
        return Err(KernelError::invalid_input(error));
    }
    let mut values = vec![T::zeroed(); bytes / size_of::<T>()];
    fill(bytemuck::cast_slice_mut(&mut values))?;
    Ok(values)
}

macro_rules! plain {
    (@one $type:ty { $($raw:tt)* }) => {
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

            $($raw)*
        }
    };
    (@buffers $($type:ty),*) => {$(
        plain!(@one $type {
            fn raw(&self) -> Option<&[u8]> {
                Some(bytemuck::cast_slice(self))
            }

            fn from_raw(bytes: usize, fill: &mut Fill<'_>) -> Option<Result<Self, KernelError>> {
                Some(buffer(bytes, fill))
            }
        });
    )*};
    ($($type:ty),* $(,)?) => {$( plain!(@one $type {}); )*};
}

plain!(@buffers u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, f32, f64);
plain!(bool, char);

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
    fn a_buffer_comes_back_from_its_bytes_and_a_length_that_it_cannot_have_is_refused() {
        let values = vec![1.5_f64, -2.0, f64::MAX];
        let bytes = values.raw().unwrap();
        let mut fill = |place: &mut [u8]| {
            place.copy_from_slice(&bytes[..place.len()]);
            Ok(())
        };
        assert_eq!(Vec::<f64>::from_raw(bytes.len(), &mut fill).unwrap().unwrap(), values);
        assert!(Vec::<f64>::from_raw(bytes.len() - 1, &mut fill).unwrap().is_err());
        assert!(String::from("text").raw().is_none() && String::from_raw(4, &mut fill).is_none());
    }

    #[test]
    fn shared_and_boxed_values_keep_their_schema() {
        assert_eq!(<Arc<Vec<f64>>>::schema(), "[f64]");
        assert_eq!(<(u8, String)>::schema(), "(u8, string)");
    }
}

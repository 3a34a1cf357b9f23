//! Export of a [`Handler`] as the component's interface.

use std::marker::PhantomData;

use crate::{Connection, Description, Device, Error, Handler, bindings::exports::xen::hotplug::handler::Guest, log};

/// Adapter of a handler to the trait of the generated bindings.
pub struct Exported<H>(PhantomData<H>);

impl<H: Handler> Guest for Exported<H> {
    fn describe() -> Description {
        log_panics();
        H::describe()
    }

    fn connect(device: Device) -> Result<Connection, Error> {
        log_panics();
        H::connect(&device)
    }

    fn disconnect(device: Device) -> Result<(), Error> {
        log_panics();
        H::disconnect(&device)
    }
}

/// Logs the message of a panic, which the host sees only as a trap.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| log::error(&panic.to_string())));
}

/// Exports a type that implements [`Handler`] from the component.
///
/// ```
/// # use xenplug_sdk::{Connection, Description, Device, Error, Handler};
/// struct Nothing;
///
/// impl Handler for Nothing {
///     fn describe() -> Description {
///         Description::new("nothing").kind("vbd").script("block-nothing")
///     }
///
///     fn connect(_device: &Device) -> Result<Connection, Error> {
///         Ok(Connection::new())
///     }
/// }
///
/// xenplug_sdk::export!(Nothing);
/// ```
#[macro_export]
macro_rules! export {
    ($handler:ty) => {
        #[allow(
            unsafe_code,
            reason = "the canonical ABI: generated, and for the host's eyes only"
        )]
        const _: () = {
            // Linkers of other targets do not accept the symbols of the canonical ABI.
            #[cfg(target_arch = "wasm32")]
            type Handler = $crate::Exported<$handler>;
            #[cfg(target_arch = "wasm32")]
    $crate::bindings::export!(Handler with_types_in $crate::bindings);
            // On other targets the handler is type-checked only.
            #[cfg(not(target_arch = "wasm32"))]
            const _: fn() -> $crate::Description = <$handler as $crate::Handler>::describe;
        };
    };
}

//! Constructors for tables of cases, so that a case is a line or two.

use super::{Difference, Step};
use crate::harness::Device;

/// Builds a table of cases, `"name": [steps] => [differences];`, or `"name": [steps];` where nothing differs.
#[macro_export]
macro_rules! cases {
    ($($name:literal: [$($step:expr),* $(,)?] $(=> [$($difference:expr),* $(,)?])?;)*) => {
        &[$($crate::differential::Case {
            name: $name,
            steps: &[$($step),*],
            differences: &[$($($difference),*)?],
        }),*]
    };
}

/// Builds a [`Step::Sh`].
pub const fn sh(commands: &'static str) -> Step {
    Step::Sh(commands)
}

/// Builds a [`Step::Device`].
pub const fn device(device: Device, nodes: &'static [(&'static str, &'static str)]) -> Step {
    Step::Device(device, nodes)
}

/// Builds a [`Step::Write`].
pub const fn write(device: Device, node: &'static str, value: &'static str) -> Step {
    Step::Write(device, node, value)
}

/// Builds a [`Step::WriteAt`].
pub const fn write_at(path: &'static str, value: &'static str) -> Step {
    Step::WriteAt(path, value)
}

/// Builds a [`Step::Environment`].
pub const fn environment(variables: &'static str) -> Step {
    Step::Environment(variables)
}

/// Builds a [`Step::Run`].
pub const fn run(device: Device, arguments: &'static str, code: i32) -> Step {
    Step::Run(device, arguments, code)
}

/// Calls [`Step::add`].
pub const fn add(device: Device, code: i32) -> Step {
    Step::add(device, code)
}

/// Calls [`Step::remove`].
pub const fn remove(device: Device, code: i32) -> Step {
    Step::remove(device, code)
}

/// Builds a [`Step::Close`].
pub const fn close(device: Device) -> Step {
    Step::Close(device)
}

/// Builds a [`Step::Forget`].
pub const fn forget(device: Device) -> Step {
    Step::Forget(device)
}

/// Builds a [`Step::Send`].
pub const fn send(device: Device, from: &'static str, to: &'static str) -> Step {
    Step::Send(device, from, to)
}

/// Builds a difference of these lines of the original and of ours.
pub const fn differs(
    original: &'static [&'static str],
    ours: &'static [&'static str],
    because: &'static str,
) -> Difference {
    Difference {
        original,
        ours,
        because,
    }
}

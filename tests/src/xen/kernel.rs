//! Kernel of all domains, unpacked once: each domain would unpack it again, for seconds under emulation.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use super::parts::Parts;

/// Extracts the kernel's image from the bzImage that Debian ships. The header gives the offset of the payload behind
/// the real-mode code (Documentation/arch/x86/boot.rst of Linux).
pub(super) fn unpack(parts: &Parts, to: &Path) -> Result<()> {
    let packed = parts.only("boot", "vmlinuz-")?;
    let whole = fs::read(&packed).with_context(|| packed.display().to_string())?;
    let payload = payload(&whole).with_context(|| format!("{} is no bzImage", packed.display()))?;
    ensure!(
        payload.starts_with(b"\xfd7zXZ\0"),
        "{} is not packed by xz",
        packed.display()
    );
    let packed = to.with_extension("xz");
    fs::write(&packed, payload)?;
    // The length of the unpacked image follows the stream (scripts/Makefile.lib, `size_append`).
    let image = filter(parts.command("xz")?.args(["--single-stream", "-dc"]), &packed)?;
    ensure!(image.starts_with(b"\x7fELF"), "{} holds no ELF file", packed.display());
    fs::write(to, image)?;
    Ok(fs::remove_file(packed)?)
}

/// Returns the output of a program that reads a file.
pub(super) fn filter(program: &mut Command, file: &Path) -> Result<Vec<u8>> {
    let done = program.arg(file).output().with_context(|| format!("{program:?}"))?;
    let errors = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{program:?}: {}", errors.trim());
    Ok(done.stdout)
}

fn payload(image: &[u8]) -> Option<&[u8]> {
    let number = |at: usize| Some(u32::from_le_bytes(image.get(at..at + 4)?.try_into().ok()?) as usize);
    let setup_sectors = match *image.get(0x1f1)? {
        0 => 4,
        sectors => usize::from(sectors),
    };
    (image.get(0x202..0x206)? == b"HdrS").then_some(())?;
    let begin = (setup_sectors + 1) * 512 + number(0x248)?;
    image.get(begin..begin + number(0x24c)?)
}

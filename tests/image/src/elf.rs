//! What a program or library of 64 bits says about its needs (System V ABI, chapters 4 and 5).

use anyhow::{Context, Result, bail, ensure};

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const DT_NULL: u64 = 0;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
/// Length of an entry of the dynamic section.
const DYNAMIC_ENTRY: usize = 16;

/// The processors for which there is an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Machine {
    X86_64,
    Aarch64,
}

impl Machine {
    /// Its name in image manifests (GOARCH).
    pub(crate) const fn architecture(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// Debian's name of the folder of its libraries.
    pub(crate) const fn triplet(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-linux-gnu",
            Self::Aarch64 => "aarch64-linux-gnu",
        }
    }
}

/// What a file names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Needs {
    pub(crate) machine: Machine,
    /// The path of the loader; a library has none, and a static program neither.
    pub(crate) interpreter: Option<String>,
    /// File names of libraries (`DT_NEEDED`).
    pub(crate) libraries: Vec<String>,
}

struct Segment {
    kind: u32,
    offset: usize,
    address: u64,
    length: usize,
}

/// Reads a whole file.
pub(crate) fn needs(bytes: &[u8]) -> Result<Needs> {
    // Magic number, 64 bits, little-endian.
    ensure!(bytes.starts_with(b"\x7fELF\x02\x01"), "it is no ELF file of 64 bits, least significant byte first");
    let machine = match number(bytes, 18, 2)? {
        62 => Machine::X86_64,
        183 => Machine::Aarch64,
        other => bail!("it is for the processor {other}; there are images for x86-64 and AArch64"),
    };
    let segments = segments(bytes)?;
    let part = |segment: &Segment| bytes.get(segment.offset..segment.offset + segment.length).context("it is cut off");
    let of_kind = |kind| segments.iter().find(|segment| segment.kind == kind);
    let interpreter = of_kind(PT_INTERP).map(|segment| part(segment).and_then(|bytes| text(bytes, 0))).transpose()?;
    let libraries = match of_kind(PT_DYNAMIC) {
        Some(segment) => libraries(bytes, part(segment)?, &segments)?,
        None => Vec::new(),
    };
    Ok(Needs { machine, interpreter, libraries })
}

fn segments(bytes: &[u8]) -> Result<Vec<Segment>> {
    let (start, size, count) = (number(bytes, 32, 8)?, number(bytes, 54, 2)?, number(bytes, 56, 2)?);
    let one = |index: u64| {
        let at = usize::try_from(start + index * size)?;
        Ok(Segment {
            kind: u32::try_from(number(bytes, at, 4)?)?,
            offset: usize::try_from(number(bytes, at + 8, 8)?)?,
            address: number(bytes, at + 16, 8)?,
            length: usize::try_from(number(bytes, at + 32, 8)?)?,
        })
    };
    (0..count).map(one).collect()
}

fn libraries(bytes: &[u8], dynamic: &[u8], segments: &[Segment]) -> Result<Vec<String>> {
    let entries = dynamic.chunks_exact(DYNAMIC_ENTRY).map(|entry| Ok((number(entry, 0, 8)?, number(entry, 8, 8)?)));
    let entries: Vec<(u64, u64)> = entries.collect::<Result<_>>()?;
    let entries = || entries.iter().take_while(|(tag, _)| *tag != DT_NULL);
    let Some((_, address)) = entries().find(|(tag, _)| *tag == DT_STRTAB) else { return Ok(Vec::new()) };
    let holds = |segment: &&Segment| {
        segment.kind == PT_LOAD && (segment.address..segment.address + segment.length as u64).contains(address)
    };
    let segment = segments.iter().find(holds).context("its strings are in no segment")?;
    let strings = segment.offset + usize::try_from(address - segment.address)?;
    let names = entries().filter(|(tag, _)| *tag == DT_NEEDED);
    names.map(|(_, at)| text(bytes, strings + usize::try_from(*at)?)).collect()
}

/// A number of so many bytes.
fn number(bytes: &[u8], at: usize, length: usize) -> Result<u64> {
    let bytes = bytes.get(at..at + length).context("it is cut off")?;
    Ok(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// The text up to the next zero.
fn text(bytes: &[u8], at: usize) -> Result<String> {
    let rest = bytes.get(at..).context("it is cut off")?;
    let end = rest.iter().position(|byte| *byte == 0).context("a name in it has no end")?;
    Ok(std::str::from_utf8(&rest[..end]).context("a name in it is no UTF-8")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_very_program_names_a_loader_and_the_c_library() {
        let file = std::env::current_exe().unwrap();
        let needs = needs(&std::fs::read(file).unwrap()).unwrap();
        assert!(needs.interpreter.unwrap().contains("/ld-linux"));
        assert!(needs.libraries.iter().any(|name| name == "libc.so.6"), "{:?}", needs.libraries);
    }

    #[test]
    fn what_is_no_program_is_refused_and_what_is_cut_off_is_too() {
        assert!(needs(b"#!/bin/sh\n").is_err());
        let file = std::env::current_exe().unwrap();
        let bytes = std::fs::read(file).unwrap();
        assert!(needs(&bytes[..60]).is_err());
    }
}

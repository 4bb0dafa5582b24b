//! The memory of this process.

use std::fs;

/// A large page: 2 MiB where small ones have 4 KiB.
const LARGE_PAGE: usize = 2 << 20;
/// Below this the pages of a buffer do not matter.
const LARGE: usize = 4 << 20;
/// The smallest page.
const PAGE: usize = 4096;
/// Gathers what is there now, whatever the machine's setting for large pages (Linux 6.1).
const MADV_COLLAPSE: libc::c_int = 25;

/// Moves the heap of this process into large pages, as far as it fills them, and says how many bytes that were.
///
/// Services and endpoints lie all over the heap. Where a change comes after a pause, each that it touches costs a walk through the
/// tables of pages first, in a virtual machine through two sets of them. It is worth doing once, when the heap has grown: it
/// copies everything, 14 to 19 ms for 40 MB and ten times that where the kernel must first make room, and holds up nobody but who asks
/// for memory at that moment.
///
/// Kernels before 6.1, and those without large pages, do nothing.
#[must_use]
pub fn gather_heap() -> usize {
    let areas = fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    heaps(&areas).into_iter().map(|(start, len)| if gather(start, len) { len } else { 0 }).sum()
}

/// Start and length of the large pages of the allocator's memory: the heap itself, and what has no name. Areas that are mostly
/// empty, as stacks are, stay so.
fn heaps(areas: &str) -> Vec<(usize, usize)> {
    let mut all = Vec::new();
    let mut area = None;
    for line in areas.lines() {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("Rss:") => {
                let resident = words.next().and_then(|size| size.parse::<usize>().ok()).unwrap_or(0) << 10;
                all.extend(area.take().filter(|(_, len)| resident >= len / 2));
            }
            Some(range) if !range.ends_with(':') => area = heap(range, words),
            _ => {}
        }
    }
    all
}

fn heap<'a>(range: &str, mut words: impl Iterator<Item = &'a str>) -> Option<(usize, usize)> {
    let (start, end) = range.split_once('-')?;
    let is_writable = words.next()?.starts_with("rw-p");
    let is_heap = words.nth(3).is_none_or(|name| name == "[heap]");
    let start = usize::from_str_radix(start, 16).ok()?.checked_next_multiple_of(LARGE_PAGE)?;
    let end = usize::from_str_radix(end, 16).ok()? / LARGE_PAGE * LARGE_PAGE;
    (is_writable && is_heap && start < end).then(|| (start, end - start))
}

fn gather(start: usize, len: usize) -> bool {
    // SAFETY: the advice changes how the kernel backs the range and nothing of its content; a range that is no longer mapped is an
    // error that is returned.
    unsafe { libc::madvise(std::ptr::without_provenance_mut(start), len, MADV_COLLAPSE) == 0 }
}

/// Gives back to the system what was needed for a moment and lies unused between what is kept.
///
/// The allocator does so by itself only with what is last in memory. It is worth doing where a start or a long task has ended;
/// C libraries other than glibc do it in their own way.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the function takes the allocator's own locks and touches nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Sets up the allocator for a process that is small and mostly waits.
///
/// All threads share one heap: by itself the allocator of glibc gives each thread one of its own, in which what one thread needed
/// for a moment is of no use to the others. And small pieces that are given back are joined with their neighbours at once: by
/// itself glibc puts that off until somebody asks for 1 kB, and then goes through all of them, wherever in memory they lie, in
/// the middle of a change.
///
/// To be called before the first thread is started; C libraries other than glibc do it in their own way.
pub fn set_up_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: each call sets a parameter of the allocator under its own lock. An error means that it stays as it was.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MXFAST, 0);
    }
}

/// An empty buffer with this much room. A large one is asked for in large pages: a table of 100,000 rules has 30 MB, and to
/// touch them page by page would take a tenth of the time of its replacement.
pub(crate) fn buffer(capacity: usize) -> Vec<u8> {
    let mut buffer: Vec<u8> = Vec::with_capacity(capacity);
    if capacity >= LARGE {
        let start = buffer.as_mut_ptr();
        let to_page = start.align_offset(PAGE);
        let len = capacity.saturating_sub(to_page) / PAGE * PAGE;
        // SAFETY: the range begins on a page and lies within the room that the buffer owns; the advice changes how the
        // kernel backs it and nothing of its content. An error means that the advice is not taken.
        let _ = unsafe { libc::madvise(start.add(to_page).cast(), len, libc::MADV_HUGEPAGE) };
    }
    buffer
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::*;

    /// Two tests look at the memory of the whole process.
    static WHOLE: Mutex<()> = Mutex::new(());

    const AREAS: &str = "\
55d0c0400000-55d0c0e00000 r-xp 00000000 fe:00 1 /usr/bin/fairlead
Size:              10240 kB
Rss:                9000 kB
55d0d0100000-55d0d1300000 rw-p 00000000 00:00 0                          [heap]
Size:              18432 kB
Rss:               18000 kB
AnonHugePages:         0 kB
7f1000000000-7f1000800000 rw-p 00000000 00:00 0
Size:               8192 kB
Rss:                 100 kB
7f2000000000-7f2000700000 rw-p 00000000 00:00 0
Rss:                7168 kB
7ffc00000000-7ffc00800000 rw-p 00000000 00:00 0                          [stack]
Rss:                8192 kB
";

    #[test]
    fn areas_of_the_allocator_that_are_in_use_are_found() {
        let wanted = [(0x55d0_d020_0000, 8 * LARGE_PAGE), (0x7f20_0000_0000, 3 * LARGE_PAGE)];
        assert_eq!(heaps(AREAS), wanted);
        assert_eq!(heaps("nonsense\nRss: much\n-\n"), []);
    }

    #[test]
    fn what_lies_unused_between_what_is_kept_is_given_back() {
        let _alone = WHOLE.lock().unwrap_or_else(PoisonError::into_inner);
        const PIECES: usize = 64 << 10;
        const EACH: usize = 1024;
        let resident = || {
            let all = fs::read_to_string("/proc/self/statm").expect("this process is known");
            all.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("a number") * PAGE
        };
        let mut pieces: Vec<Vec<u8>> = (0..PIECES).map(|_| vec![1; EACH]).collect();
        // Every sixteenth is kept, and so is everything that the allocator has taken.
        let mut at = 0;
        pieces.retain(|_| {
            at += 1;
            at % 16 == 1
        });
        let before = resident();
        give_back();
        let after = resident();
        assert!(before - after > PIECES * EACH / 4, "{before} {after}");
        assert!(pieces.iter().flatten().all(|byte| *byte == 1));
    }

    #[test]
    fn what_was_written_is_there_afterwards_in_large_pages() {
        let _alone = WHOLE.lock().unwrap_or_else(PoisonError::into_inner);
        const SIZE: usize = 16 << 20;
        let written: Vec<u64> = (0..SIZE as u64 / 8).collect();
        let gathered = gather_heap();
        let in_large_pages = || {
            let all = fs::read_to_string("/proc/self/smaps_rollup").expect("this process is known");
            let line = all.lines().find_map(|line| line.strip_prefix("AnonHugePages:")).expect("Linux 4.14 says it");
            line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
        };
        assert!(gathered >= SIZE / 2, "{gathered}");
        assert!(in_large_pages() >= SIZE / 2, "{}", in_large_pages());
        assert!(written.iter().copied().eq(0..SIZE as u64 / 8));
    }
}

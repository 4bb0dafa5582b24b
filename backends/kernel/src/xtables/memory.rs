//! Buffers for whole tables.

/// Below this the pages of a buffer do not matter.
const LARGE: usize = 4 << 20;
/// The smallest page.
const PAGE: usize = 4096;

/// An empty buffer with this much room. A large one is asked for in large pages: a table of 100,000 rules has 30 MB, and to
/// touch them page by page would take a tenth of the time of its replacement.
pub fn buffer(capacity: usize) -> Vec<u8> {
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

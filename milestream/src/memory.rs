//! What the process gives back of the memory that it has used.

/// From this size on a buffer is mapped for itself, and given back when it is freed: glibc's own value at its start, 128 KiB.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAPPED_FROM: nix::libc::c_int = 128 << 10;

/// Lets the allocator give large buffers back, for as long as the process lives.
///
/// glibc raises the size from which a buffer is mapped to that of the largest which was freed, up to 32 MiB, and what each of its arenas,
/// eight per core, may keep to twice as much. A role that decodes photos then keeps tens of MiB for each thread that ever had a photo
/// while the machine was busy. A size that is set stays as it is.
pub fn give_back_large_buffers() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        #[allow(
            unsafe_code,
            reason = "mallopt takes two integers, no pointer, and locks the allocator that it changes"
        )]
        // SAFETY: as the reason says; what is allocated already keeps its place.
        let was_set = unsafe { nix::libc::mallopt(nix::libc::M_MMAP_THRESHOLD, MAPPED_FROM) };
        // Zero means that the allocator knows no such setting: it then keeps more, and nothing else changes.
        debug_assert_eq!(was_set, 1);
    }
}

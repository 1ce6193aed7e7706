//! No file descriptor stays behind. Alone in its binary, so that nothing else opens any.

use ringway_mem::{GuestMemory, RegionRequest};

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn descriptors_are_closed_with_their_memory_or_refused() {
    let before = open_descriptors();
    for _ in 0..10 {
        let (memory, requests) = GuestMemory::memfd(&[(0, 4096), (8192, 4096)]).unwrap();
        assert_eq!(
            open_descriptors(),
            before + 4,
            "a file for each region and each request"
        );

        let again: Vec<RegionRequest> = requests
            .iter()
            .map(|request| RegionRequest {
                file: request.file.try_clone().unwrap(),
                ..*request
            })
            .collect();
        let mapped = GuestMemory::map(requests).unwrap();
        assert_eq!(
            open_descriptors(),
            before + 6,
            "those of the requests are kept"
        );

        let mut again = again.into_iter();
        assert!(memory.with_added(again.next().unwrap()).is_err());
        assert_eq!(open_descriptors(), before + 5, "a refused file is closed");

        let short = RegionRequest {
            size: 1 << 30,
            ..again.next().unwrap()
        };
        let (_, mut many) = GuestMemory::memfd(&[(1 << 40, 4096)]).unwrap();
        many.insert(0, short);
        assert!(GuestMemory::map(many).is_err());
        assert_eq!(
            open_descriptors(),
            before + 4,
            "so are those behind a refused one"
        );
        drop((memory, mapped));
        assert_eq!(
            open_descriptors(),
            before,
            "nothing is left with the memory"
        );
    }
    assert_eq!(open_descriptors(), before);
}

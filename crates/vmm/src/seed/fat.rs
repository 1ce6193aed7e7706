//! A FAT12 file system with a few files in its root directory: enough for a seed, and small enough to be written by hand.
//!
//! Layout in sectors of 512 bytes: boot sector, two copies of the table, the root directory, then data in clusters of one sector. Long
//! names take further entries before the file's own, thirteen UTF-16 units each (Microsoft's FAT specification, sections 3, 6 and 7).

const SECTOR: usize = 512;
/// A floppy disk's: 2880 sectors are 1.44 MB, fewer than the 4085 clusters where FAT12 ends.
const SECTORS: usize = 2880;
const TABLE_SECTORS: usize = 9;
const ROOT_ENTRIES: usize = 224;
const ENTRY: usize = 32;
const ROOT_SECTORS: usize = ROOT_ENTRIES * ENTRY / SECTOR;
const FIRST_DATA: usize = 1 + 2 * TABLE_SECTORS + ROOT_SECTORS;
/// Clusters 0 and 1 do not exist.
const FIRST_CLUSTER: usize = 2;
const END_OF_CHAIN: u16 = 0xfff;
/// Units of a name in one entry.
const UNITS: usize = 13;

/// An image of the file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fat {
    bytes: Vec<u8>,
    next_cluster: usize,
    next_entry: usize,
}

/// Why files do not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FatError {
    /// There is not room enough for their contents.
    #[error(
        "{name} has {len} bytes, more than the {} that a seed has room for: have it fetch what it needs",
        (SECTORS - FIRST_DATA) * SECTOR
    )]
    TooLong {
        /// The file.
        name: String,
        /// Its length.
        len: usize,
    },
    /// A name is too long for its entries.
    #[error("the name {0:?} does not fit: give a shorter one")]
    Name(String),
}

impl Fat {
    /// With a label of at most 11 bytes, and files of names in ASCII.
    pub fn new(label: &str, files: &[(&str, &[u8])]) -> Result<Self, FatError> {
        let mut fat = Self {
            bytes: vec![0; SECTORS * SECTOR],
            next_cluster: FIRST_CLUSTER,
            next_entry: 0,
        };
        let label = padded::<11>(label.as_bytes()).ok_or_else(|| FatError::Name(label.into()))?;
        fat.boot_sector(&label);
        // The first two entries of the table hold the medium's type and a mark.
        fat.link(0, 0xff0);
        fat.link(1, END_OF_CHAIN);
        fat.entry(&short_entry(&label, 0x08, 0, 0))?;
        for (number, (name, content)) in files.iter().enumerate() {
            fat.file(number, name, content)?;
        }
        Ok(fat)
    }

    /// The image.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn boot_sector(&mut self, label: &[u8; 11]) {
        let word = |number: usize| u16::try_from(number).unwrap_or_default().to_le_bytes();
        let sector = &mut self.bytes[..SECTOR];
        let mut put = |at: usize, bytes: &[u8]| sector[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &[0xeb, 0x3c, 0x90]);
        put(3, b"MSWIN4.1");
        put(11, &word(SECTOR));
        put(13, &[1]); // sectors per cluster
        put(14, &word(1)); // reserved sectors
        put(16, &[2]); // tables
        put(17, &word(ROOT_ENTRIES));
        put(19, &word(SECTORS));
        put(21, &[0xf0]); // medium
        put(22, &word(TABLE_SECTORS));
        put(24, &word(18)); // sectors per track
        put(26, &word(2)); // heads
        put(38, &[0x29]); // serial number, label and type follow
        put(39, b"RWAY");
        put(43, label);
        put(54, b"FAT12   ");
        put(510, &[0x55, 0xaa]);
    }

    fn file(&mut self, number: usize, name: &str, content: &[u8]) -> Result<(), FatError> {
        // Its own name is for old programs: unlike any other, and never shown.
        let short = format!("FILE~{number}  ");
        let short = padded::<11>(short.as_bytes()).ok_or_else(|| FatError::Name(name.into()))?;
        let sum = short
            .iter()
            .fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
        let mut units: Vec<u16> = name.encode_utf16().collect();
        if !units.len().is_multiple_of(UNITS) {
            units.push(0);
            units.resize(units.len().next_multiple_of(UNITS), 0xffff);
        }
        let chunks = units.chunks(UNITS).enumerate().rev();
        for (place, (index, chunk)) in chunks.enumerate() {
            let order = u8::try_from(index + 1)
                .ok()
                .filter(|order| *order <= 20)
                .ok_or_else(|| FatError::Name(name.into()))?;
            let last = if place == 0 { 0x40 } else { 0 };
            self.entry(&long_entry(order | last, sum, chunk))?;
        }
        let first = self.store(name, content)?;
        let too_long = || FatError::TooLong {
            name: name.into(),
            len: content.len(),
        };
        let len = u32::try_from(content.len()).map_err(|_| too_long())?;
        self.entry(&short_entry(&short, 0x20, first, len))
    }

    /// Puts the content into a chain of clusters; the first one, 0 if there is none.
    fn store(&mut self, name: &str, content: &[u8]) -> Result<u16, FatError> {
        let first = self.next_cluster;
        let count = content.len().div_ceil(SECTOR);
        if first + count - FIRST_CLUSTER > SECTORS - FIRST_DATA {
            return Err(FatError::TooLong {
                name: name.into(),
                len: content.len(),
            });
        }
        for (index, chunk) in content.chunks(SECTOR).enumerate() {
            let cluster = first + index;
            let at = (FIRST_DATA + cluster - FIRST_CLUSTER) * SECTOR;
            self.bytes[at..at + chunk.len()].copy_from_slice(chunk);
            let next = u16::try_from(cluster + 1).unwrap_or(END_OF_CHAIN);
            let link = if index + 1 == count {
                END_OF_CHAIN
            } else {
                next
            };
            self.link(cluster, link);
        }
        self.next_cluster += count;
        Ok(if count == 0 {
            0
        } else {
            u16::try_from(first).unwrap_or_default()
        })
    }

    /// Twelve bits per cluster, two clusters in three bytes, in both tables.
    fn link(&mut self, cluster: usize, value: u16) {
        for table in 0..2 {
            let at = (1 + table * TABLE_SECTORS) * SECTOR + cluster * 3 / 2;
            let old = u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]]);
            let new = if cluster.is_multiple_of(2) {
                old & 0xf000 | value
            } else {
                old & 0x000f | value << 4
            };
            self.bytes[at..at + 2].copy_from_slice(&new.to_le_bytes());
        }
    }

    fn entry(&mut self, entry: &[u8; ENTRY]) -> Result<(), FatError> {
        if self.next_entry == ROOT_ENTRIES {
            return Err(FatError::Name("one file more".into()));
        }
        let at = (1 + 2 * TABLE_SECTORS) * SECTOR + self.next_entry * ENTRY;
        self.bytes[at..at + ENTRY].copy_from_slice(entry);
        self.next_entry += 1;
        Ok(())
    }
}

fn padded<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut padded = [b' '; N];
    padded.get_mut(..text.len())?.copy_from_slice(text);
    Some(padded)
}

fn short_entry(name: &[u8; 11], attributes: u8, cluster: u16, len: u32) -> [u8; ENTRY] {
    let mut entry = [0; ENTRY];
    entry[..11].copy_from_slice(name);
    entry[11] = attributes;
    // 1 January 1980, the first day there is.
    entry[24..26].copy_from_slice(&0x21u16.to_le_bytes());
    entry[26..28].copy_from_slice(&cluster.to_le_bytes());
    entry[28..32].copy_from_slice(&len.to_le_bytes());
    entry
}

fn long_entry(order: u8, sum: u8, units: &[u16]) -> [u8; ENTRY] {
    let mut entry = [0; ENTRY];
    entry[0] = order;
    entry[11] = 0x0f;
    entry[13] = sum;
    let places = (1..11)
        .step_by(2)
        .chain((14..26).step_by(2))
        .chain([28, 30]);
    for (place, unit) in places.zip(units) {
        entry[place..place + 2].copy_from_slice(&unit.to_le_bytes());
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_of_a_file_are_linked_in_both_tables() {
        let content = vec![7; 3 * SECTOR];
        let fat = Fat::new("cidata", &[("a", b"x"), ("b", &content), ("c", b"")]).unwrap();
        // Cluster 2 is the first file's; 3, 4 and 5 are the second's.
        let link = |table: usize, cluster: usize| {
            let at = (1 + table * TABLE_SECTORS) * SECTOR + cluster * 3 / 2;
            let word = u16::from_le_bytes([fat.bytes[at], fat.bytes[at + 1]]);
            if cluster.is_multiple_of(2) {
                word & 0xfff
            } else {
                word >> 4
            }
        };
        for table in 0..2 {
            let links: Vec<u16> = (0..7).map(|cluster| link(table, cluster)).collect();
            assert_eq!(links, [0xff0, 0xfff, 0xfff, 4, 5, 0xfff, 0]);
        }
        let at = (FIRST_DATA + 1) * SECTOR;
        assert_eq!(fat.bytes[at..at + 3 * SECTOR], content);
    }

    #[test]
    fn names_are_as_given_and_the_label_is_where_it_is_looked_for() {
        let fat = Fat::new("cidata", &[("user-data.longer", b"x")]).unwrap();
        let root = &fat.bytes[(1 + 2 * TABLE_SECTORS) * SECTOR..];
        assert_eq!(&root[..12], b"cidata     \x08");
        // The end of a name comes first, with a mark.
        assert_eq!((root[ENTRY], root[2 * ENTRY]), (0x42, 0x01));
        let unit = |at: usize| char::from(root[2 * ENTRY + at]);
        let first: String = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30]
            .map(unit)
            .iter()
            .collect();
        assert_eq!(first, "user-data.lon");
        assert_eq!(&fat.bytes[43..49], b"cidata");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let most = vec![1; (SECTORS - FIRST_DATA) * SECTOR];
        assert!(Fat::new("cidata", &[("a", &most)]).is_ok());
        let error = Fat::new("cidata", &[("a", &most), ("b", b"x")]).unwrap_err();
        assert!(matches!(error, FatError::TooLong { len: 1, .. }));
        assert!(Fat::new("a label that is too long", &[]).is_err());
        assert!(Fat::new("cidata", &[(&"a".repeat(300), b"")]).is_err());
    }
}

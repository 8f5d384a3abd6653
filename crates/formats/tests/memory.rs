//! Hostile files may claim any size; what is allocated follows the size they have. Alone in its program, because the
//! peak is that of the whole process.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use peak_alloc::PeakAlloc;
use secateur_formats::{DatasetSource, ImageNeeds, Preprocessing, Split, read_cifar10, read_weights};
use secateur_net::Shape;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Half a million opcodes, each with an empty dict or tuple, take about half of this.
const LIMIT_MIB: f32 = 64.0;

/// First pickle of a legacy file.
const MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

fn refused_within_limit(what: &str, bytes: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hostile");
    fs::write(&path, bytes).unwrap();
    MEMORY.reset_peak_usage();
    let error = read_weights(&path).expect_err(what);
    let peak = MEMORY.peak_usage_as_mb();
    assert!(peak < LIMIT_MIB, "{what}: {peak} MiB for {} bytes, {error}", bytes.len());
}

/// A zip64 end record that claims `n_files` entries in a directory of `size` bytes at `offset`.
fn zip64_end(n_files: u64, size: u64, offset: u64, record_size: u64) -> Vec<u8> {
    let mut out = b"PK\x03\x04".to_vec();
    let record = out.len() as u64;
    out.extend(b"PK\x06\x06");
    out.extend(record_size.to_le_bytes());
    out.extend([45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    [n_files, n_files, size, offset].iter().for_each(|n| out.extend(n.to_le_bytes()));
    out.extend(b"PK\x06\x07\0\0\0\0");
    out.extend(record.to_le_bytes());
    out.extend([1, 0, 0, 0]);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend([0xff; 12]);
    out.extend([0, 0]);
    out
}

/// A legacy file that holds nothing but the pickle `body`.
fn pickled(body: &[u8]) -> Vec<u8> {
    const PROTOCOL: &[u8] = b"\x80\x02M\xe9\x03.\x80\x02}U\x0dlittle_endian\x88s.";
    [MAGIC, PROTOCOL, b"\x80\x02", body, b".\x80\x02]."].concat()
}

/// A tensor over a storage of `n_elements` that is not there, of so many elements itself.
fn claimed_tensor(n_elements: u64) -> Vec<u8> {
    let n = [b"\x8a\x09".to_vec(), n_elements.to_le_bytes().to_vec(), vec![0]].concat();
    let n = if n_elements >> 63 == 0 { [b"\x8a\x08".to_vec(), n_elements.to_le_bytes().to_vec()].concat() } else { n };
    let storage = [b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpu", n.as_slice(), b"tQ"].concat();
    let head = b"}U\x01wctorch._utils\n_rebuild_tensor_v2\n(".to_vec();
    [head, storage, b"K\x00".to_vec(), n.clone(), b"\x85K\x01\x85\x89}tRs".to_vec()].concat()
}

/// A file of `n_bytes`, of which only `head` lies on the disk.
fn sparse(folder: &Path, head: &[u8], n_bytes: u64) -> PathBuf {
    let path = folder.join("sparse");
    fs::write(&path, head).unwrap();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(n_bytes).unwrap();
    path
}

/// Sparse giants of every beginning: none is read further than its ends.
fn giants_are_refused_by_their_ends() {
    let dir = tempfile::tempdir().unwrap();
    let torch_made =
        |name: &str| fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torch_files").join(name)).unwrap();
    let header = br#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let safetensors = [&(header.len() as u64).to_le_bytes()[..], header, &[0; 4]].concat();
    let heads = [vec![], torch_made("read_plain.pth"), safetensors, vec![0x80, 2], b"\x08\x08\x12\x07".to_vec()];
    for n_bytes in [3 << 30, 2_000_000_000] {
        for head in &heads {
            let path = sparse(dir.path(), head, n_bytes);
            MEMORY.reset_peak_usage();
            let error = read_weights(&path).expect_err("a giant").to_string();
            let peak = MEMORY.peak_usage_as_mb();
            // What begins as a pickle without an end is followed to its end, as long as it is no longer than a file may
            // be.
            assert!(peak < LIMIT_MIB || head.starts_with(&[0x80]), "{peak} MiB, {error}");
            assert!(n_bytes < 2 << 30 || error.contains("at most 2147483648 are read"), "{error}");
        }
    }
    // Behind a whole legacy file anything may lie; it is not looked at.
    let path = sparse(dir.path(), &torch_made("read_plain.legacy.pth"), 2_000_000_000);
    MEMORY.reset_peak_usage();
    assert_eq!(read_weights(&path).unwrap().weights.len(), 2);
    assert!(MEMORY.peak_usage_as_mb() < LIMIT_MIB);
    let folder = dir.path().join("cifar-10-batches-bin");
    fs::create_dir(&folder).unwrap();
    fs::rename(sparse(dir.path(), &[], 3 << 30), folder.join("test_batch.bin")).unwrap();
    MEMORY.reset_peak_usage();
    let error = read_cifar10(dir.path(), Split::Test).unwrap_err().to_string();
    assert!(error.contains("3221225472") && MEMORY.peak_usage_as_mb() < LIMIT_MIB, "{error}");
}

/// Pickles that are small and mean something large.
fn what_a_pickle_refers_to_again_and_again_is_looked_at_once() {
    // {"a": x, "b": x} in itself 200 times over, and the same of lists: 2^200 dicts for whoever follows every
    // reference.
    let doubled = |open: &[u8], close: &[u8]| {
        let level = |i: u8| [b"q", &[i][..], b"0", open, b"h", &[i], close].concat();
        [b"}".to_vec(), (0..200).flat_map(level).collect()].concat()
    };
    refused_within_limit("dicts in dicts", &pickled(&doubled(b"}(U\x01a", b"U\x01bh\x00u")));
    refused_within_limit("lists in lists", &pickled(&doubled(b"](", b"h\x00e")));
    // 30,000 dicts with a tensor each under long keys in long keys.
    let key = [b"T\x00\x02\x00\x00".to_vec(), vec![b'k'; 512]].concat();
    let tensor = [b"q\x01".to_vec(), claimed_tensor(1), b"0h\x01".to_vec()].concat();
    let many = [&b"}"[..], &tensor, b"0](", &b"}U\x01wNs".repeat(30_000), b"e"].concat();
    let nested = (0..10).fold(many, |inner, _| [b"}", &key[..], &inner, b"s"].concat());
    refused_within_limit("long paths", &pickled(&nested));
    for n_elements in [1 << 20, 1 << 40, (1 << 62) + 1, i64::MAX as u64, u64::MAX] {
        refused_within_limit("claimed storage", &pickled(&claimed_tensor(n_elements)));
    }
    for op in [&b"\x8f"[..], b"(\x91", b"\x8fq\x00", b"ccollections\nCounter\n)R", b"cnumpy\ndtype\n)\x81}b", b"N}\x92"]
    {
        refused_within_limit("a megabyte of one opcode", &pickled(&op.repeat((1 << 20) / op.len())));
    }
}

/// An archive of a megabyte whose array unfolds to a gigabyte; arrays whose headers claim more than there is.
fn arrays_that_unfold_are_refused() {
    let header = |shape: &str| {
        let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}\n");
        [b"\x93NUMPY\x01\0", &(header.len() as u16).to_le_bytes()[..], header.as_bytes()].concat()
    };
    let mut bomb = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    bomb.start_file("x.npy", zip::write::SimpleFileOptions::default().large_file(true)).unwrap();
    bomb.write_all(&header("(1024, 1024, 1024)")).unwrap();
    (0..1024).for_each(|_| bomb.write_all(&vec![0; 1 << 20]).unwrap());
    let bomb = bomb.finish().unwrap().into_inner();
    let mut lies = header("(1, 1048576, 1048576)");
    lies.resize(4096, 0);
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in [("bomb.npz", bomb), ("lies.npy", lies)] {
        let file = dir.path().join(name);
        fs::write(&file, bytes).unwrap();
        let source: DatasetSource = format!("arrays:{}", file.display()).parse().unwrap();
        MEMORY.reset_peak_usage();
        let error = source.read(dir.path(), Split::Train).unwrap_err().to_string();
        let peak = MEMORY.peak_usage_as_mb();
        assert!(peak < LIMIT_MIB && error.contains(name), "{name}: {peak} MiB, {error}");
    }
}

/// Headers of a few bytes that declare up to four thousand million pixels.
fn images_without_pixels_are_refused() {
    let big = 60_000u32;
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
    png.extend([big.to_be_bytes(), big.to_be_bytes()].concat());
    png.extend([8, 2, 0, 0, 0]);
    let mut crc = flate2::Crc::new();
    crc.update(&png[12..]);
    png.extend(crc.sum().to_be_bytes());
    png.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e");
    let mut bmp = b"BM\x36\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0".to_vec();
    bmp.extend([big.to_le_bytes(), big.to_le_bytes()].concat());
    bmp.extend(b"\x01\0\x18\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    let jpeg = b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\x03\x01\x22\0\x02\x11\0\x03\x11\0\xff\xda\0\x0c\x03\x01\0\x02\0\x03\0\0\x3f\0";
    for (what, bytes, expected) in
        [("PNG", &png[..], "60000 x 60000"), ("BMP", &bmp, "60000 x 60000"), ("JPEG", jpeg, "65535 x 65535")]
    {
        MEMORY.reset_peak_usage();
        let error = secateur_formats::decode_image(bytes).unwrap_err().to_string();
        let peak = MEMORY.peak_usage_as_mb();
        assert!(peak < LIMIT_MIB && error.contains(expected) && error.contains(what), "{what}: {peak} MiB, {error}");
    }
}

/// Of 400 listed images 30 are asked for: what is held are these and what two threads decode at the time.
fn no_more_images_are_held_than_are_asked_for() {
    const SIDE: usize = 224;
    let dir = tempfile::tempdir().unwrap();
    let picture = image::RgbImage::from_fn(500, 375, |x, y| image::Rgb([(x % 256) as u8, (y % 256) as u8, 7]));
    let mut png = Vec::new();
    picture.write_to(&mut std::io::Cursor::new(&mut png), image::ImageFormat::Png).unwrap();
    (0..400).for_each(|i| fs::write(dir.path().join(format!("{i}.png")), &png).unwrap());
    let source: DatasetSource = format!("images:{},labels=none,cache=off", dir.path().display()).parse().unwrap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    MEMORY.reset_peak_usage();
    let data = source.read(dir.path(), Split::Train).unwrap();
    let input = Shape { c: 3, h: SIDE, w: SIDE };
    let data = data.for_network(&ImageNeeds { input, outputs: 1, cache: None }).unwrap();
    let order: Vec<usize> = (0..data.len()).collect();
    let loaded = data.load_first(30, &order, &Preprocessing::imagenet(), &pool).unwrap();
    let (held, peak) = ((loaded.images.len() * 4) as f32 / f32::from(1u16 << 10) / 1024.0, MEMORY.peak_usage_as_mb());
    assert_eq!((loaded.indices.len(), loaded.images.len()), (30, 30 * input.len()));
    // A decoded image takes 0.5 MiB, and may be copied on its way.
    assert!(peak < held + 2.0 * 3.0, "{peak} MiB for images of {held} MiB");
}

#[test]
fn claimed_sizes_are_not_believed() {
    // One after the other: the peak is that of the process.
    no_more_images_are_held_than_are_asked_for();
    arrays_that_unfold_are_refused();
    images_without_pixels_are_refused();
    giants_are_refused_by_their_ends();
    what_a_pickle_refers_to_again_and_again_is_looked_at_once();

    for n_files in [0, 1 << 20, 1 << 60, u64::MAX] {
        for offset in [0, 4, n_files, u64::MAX] {
            for size in [46, n_files.saturating_mul(46), u64::MAX] {
                refused_within_limit("zip64 directory", &zip64_end(n_files, size, offset, 44));
                refused_within_limit("zip64 record", &zip64_end(n_files, size, offset, u64::MAX));
            }
        }
    }
    let mut header = 90_000_000u64.to_le_bytes().to_vec();
    header.extend(b"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]");
    refused_within_limit("safetensors header", &header);
    let mut magic = MAGIC.to_vec();
    magic.extend(b"\x80\x02X\xff\xff\xff\x7f");
    refused_within_limit("pickled string", &magic);
    for op in [&b"}"[..], b")", b"N", b"(", b"N\x94", b"}2", b"N\x85"] {
        let mut ops = MAGIC.to_vec();
        ops.extend(op.repeat((1 << 20) / op.len()));
        refused_within_limit("a megabyte of one opcode", &ops);
    }
}

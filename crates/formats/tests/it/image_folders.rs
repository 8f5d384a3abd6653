//! Folders of images: which are found, which split they belong to, what their labels are, and what is said of the rest.

use std::fs;
use std::path::Path;

use image::RgbImage;
use secateur_formats::{
    Dataset, DatasetSource, FormatError, ImageLabels, ImageNeeds, OnError, Preprocessing, Split, Transform,
};
use secateur_net::Shape;

const INPUT: Shape = Shape { c: 3, h: 4, w: 4 };

/// A folder with images of one colour each; `x` is the red of all its pixels.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(files: &[(&str, u8)]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        files.iter().for_each(|&(name, x)| folder.image(name, x));
        folder
    }
    fn image(&self, name: &str, x: u8) {
        self.write(name, b"");
        RgbImage::from_pixel(6, 5, image::Rgb([x, 0, 0])).save(self.0.path().join(name)).unwrap();
    }
    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    fn source(&self, labels: ImageLabels, on_error: OnError) -> DatasetSource {
        let (dir, transform) = (self.0.path().to_str().unwrap().to_owned(), Transform::default());
        DatasetSource::Images { dir, test: None, labels, transform, on_error, test_percent: 20, cache: true }
    }
    fn read(&self, labels: ImageLabels, split: Split) -> Result<Dataset, FormatError> {
        self.source(labels, OnError::Skip).read(Path::new("unused"), split)
    }
    fn refusal(&self, labels: ImageLabels, on_error: OnError) -> String {
        let message = self.source(labels, on_error).read(Path::new("unused"), Split::Train).unwrap_err().to_string();
        assert!(message.contains(self.0.path().to_str().unwrap()) && !message.contains('\n'), "{message}");
        message
    }
}

/// Reds of the images that can be read, with their labels.
fn reds(data: &Dataset, cache: Option<&Path>) -> Vec<(u8, Option<u16>)> {
    let data = data.for_network(&ImageNeeds { input: INPUT, outputs: 1000, cache }).unwrap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let prep = Preprocessing::new(vec![0.0; 3], vec![1.0; 3]).unwrap();
    let order: Vec<usize> = (0..data.len()).collect();
    let loaded = data.load_first(order.len(), &order, &prep, &pool).unwrap();
    let images = loaded.images.chunks_exact(INPUT.len()).zip(&loaded.indices);
    let label = |index: usize| data.labels.as_ref().map(|labels| labels[index]);
    images.map(|(image, &index)| ((image[0] * 255.0).round() as u8, label(index))).collect()
}

#[test]
fn sub_folders_are_classes_and_a_fifth_of_each_is_held_out() {
    let names: Vec<String> =
        ["cat", "dog"].iter().flat_map(|class| (0..10).map(move |i| format!("{class}/{i}.png"))).collect();
    let files: Vec<(&str, u8)> = names.iter().map(String::as_str).zip(0..).collect();
    let folder = Folder::new(&files);
    let [train, test] =
        [Split::Train, Split::Test].map(|split| reds(&folder.read(ImageLabels::Folders, split).unwrap(), None));
    for class in 0..2 {
        let of = |split: &[(u8, Option<u16>)]| split.iter().filter(|(_, label)| *label == Some(class)).count();
        assert_eq!((of(&train), of(&test)), (8, 2));
    }
    let mut all: Vec<u8> = train.iter().chain(&test).map(|(x, _)| *x).collect();
    all.sort_unstable();
    assert_eq!(all, (0..20).collect::<Vec<u8>>());
    assert!(train.iter().chain(&test).all(|&(x, label)| label == Some(u16::from(x / 10))));
    // The same again, wherever the folder lies.
    let other = Folder::new(&files);
    assert_eq!(reds(&other.read(ImageLabels::Folders, Split::Test).unwrap(), None), test);
}

#[test]
fn folders_named_after_splits_are_the_splits_and_share_their_classes() {
    let files = [("train/b/1.png", 1), ("train/a/2.bmp", 2), ("train/c/deep/3.webp", 3), ("val/c/4.png", 4)];
    let folder = Folder::new(&files);
    let train = folder.read(ImageLabels::Folders, Split::Train).unwrap();
    assert_eq!((train.n_classes, reds(&train, None)), (3, vec![(2, Some(0)), (1, Some(1)), (3, Some(2))]));
    let test = folder.read(ImageLabels::Folders, Split::Test).unwrap();
    assert_eq!((test.n_classes, reds(&test, None)), (3, vec![(4, Some(2))]));
    // Both splits are called by the folder's name, however it is written, and not by their own.
    let own = folder.0.path().file_name().unwrap().to_str().unwrap();
    let around: DatasetSource = format!("images:{}/val/..", folder.0.path().display()).parse().unwrap();
    let around = around.read(Path::new(""), Split::Test).unwrap();
    assert_eq!([&train.name, &test.name, &around.name], [own; 3]);
    // Names in lists are numbered as those of the training list.
    folder.write("train/l.csv", b"b/1.png,x\na/2.bmp,y\n");
    folder.write("val/l.csv", b"c/4.png,y\n");
    assert_eq!(reds(&folder.read(ImageLabels::List("l.csv".into()), Split::Test).unwrap(), None), [(4, Some(1))]);
    folder.image("val/new/5.png", 5);
    let message = folder.read(ImageLabels::Folders, Split::Test).unwrap_err().to_string();
    assert!(message.contains("'new'") && message.contains("both splits alike"), "{message}");
}

#[test]
fn lists_give_labels_by_number_or_name_in_every_common_form() {
    let folder = Folder::new(&[("a.png", 1), ("with space.png", 2), ("sub/c.png", 3)]);
    let test = folder.0.path().to_str().unwrap().to_owned();
    let read = |text: &str| {
        folder.write("labels.csv", text.as_bytes());
        let DatasetSource::Images { dir, labels, transform, on_error, test_percent, cache, .. } =
            folder.source(ImageLabels::List("labels.csv".into()), OnError::Skip)
        else {
            unreachable!()
        };
        let test = Some(test.clone());
        let source = DatasetSource::Images { dir, test, labels, transform, on_error, test_percent, cache };
        source.read(Path::new("unused"), Split::Train)
    };
    let expected = [(1, Some(7)), (2, Some(0)), (3, Some(7))];
    for text in [
        "a.png,7\nwith space.png,0\nsub/c.png,7\n",
        "\u{feff}path,label,other\r\na.png, 7 ,x\r\n\"with space.png\",0,y\r\nsub/c.png,7\r\n",
        "a.png\t7\nwith space.png\t0\nsub/c.png\t7",
        "a.png 7\n\nwith space.png 0\nsub/c.png 7\n",
        "filename;class\na.png;7\nwith space.png;0\nsub/c.png;7\n",
    ] {
        let data = read(text).unwrap();
        assert_eq!((data.n_classes, reds(&data, None).as_slice()), (8, &expected[..]), "{text}");
    }
    let named = read("a.png,rose\nwith space.png,daisy\nsub/c.png,rose\n").unwrap();
    assert_eq!((named.n_classes, reds(&named, None)), (2, vec![(1, Some(1)), (2, Some(0)), (3, Some(1))]));
    // A list that has both splits holds out a fifth, numbers or names.
    for text in ["a.png,3\nwith space.png,3\nsub/c.png,0\n", "a.png,x\nwith space.png,x\nsub/c.png,y\n"] {
        folder.write("labels.csv", text.as_bytes());
        let train = folder.read(ImageLabels::List("labels.csv".into()), Split::Train).unwrap();
        let is_named = text.contains('x');
        assert_eq!((train.len(), train.notes().len()), (2, 1 + usize::from(is_named)), "{:?}", train.notes());
    }
    for (text, expected) in [
        ("a.png,1\nsub/c.png\n", "line 2: expected `path,label`, got 'sub/c.png' without a label"),
        ("a.png,-1\n", "expected a label from 0 to 65534, got '-1'"),
        ("a.png,1\nsub/c.png,70000\n", "line 2: expected a label from 0 to 65534, got '70000'"),
        ("path,label\n", "has no line"),
        ("", "empty"),
    ] {
        let message = read(text).unwrap_err().to_string();
        assert!(message.contains(expected) && message.contains("labels.csv"), "{expected}: {message}");
    }
    // A label that the network has no output for.
    let nine = read("a.png,9\n").unwrap();
    let message = nine.for_network(&ImageNeeds { input: INPUT, outputs: 9, cache: None });
    let message = message.unwrap_err().to_string();
    assert!(message.contains("labels up to 9, the network has 9 outputs, 0 to 8"), "{message}");
}

#[test]
fn classes_are_numbered_as_the_scene_says_and_the_order_of_names_is_told() {
    let folder =
        Folder::new(&[("train/cat/1.png", 1), ("train/dog/2.png", 2), ("val/dog/3.png", 3), ("val/cat/4.png", 4)]);
    let named = |names: &[&str]| ImageLabels::Classes(names.iter().map(|name| (*name).to_owned()).collect());
    let order = named(&["dog", "cow", "cat"]);
    for (split, expected) in [(Split::Train, [(1, Some(2)), (2, Some(0))]), (Split::Test, [(4, Some(2)), (3, Some(0))])]
    {
        let data = folder.read(order.clone(), split).unwrap();
        assert_eq!((data.n_classes, reds(&data, None).as_slice(), data.notes()), (3, &expected[..], Vec::new()));
    }
    let told = folder.read(ImageLabels::Folders, Split::Test).unwrap().notes().join("; ");
    assert!(told.contains("outputs in alphabetical order, 'cat', 'dog'; `labels: Classes([...])` tells"), "{told}");
    let message = folder.read(named(&["dog", "cow"]), Split::Test).unwrap_err().to_string();
    assert!(message.contains("has the class 'cat', which `labels: Classes([...])` does not name"), "{message}");
    for (names, expected) in
        [(&["dog"][..], "names 1 classes"), (&["dog", "cat", "dog"], "names the class 'dog' twice")]
    {
        let told = format!("{:?}", folder.source(named(names), OnError::Skip).check());
        assert!(told.contains(expected), "{told}");
    }
}

#[test]
fn hidden_and_foreign_files_are_counted_and_named() {
    let folder = Folder::new(&[("a/1.PNG", 1), ("b/2.png", 2), ("a/3.png", 3), ("b/4.png", 4), ("lost.png", 5)]);
    for name in ["a/.hidden.jpg", ".DS_Store", "a/Thumbs.db", "b/notes.txt", ".ipynb_checkpoints/x.png"] {
        folder.write(name, b"x");
    }
    fs::create_dir(folder.0.path().join("c")).unwrap();
    let data = folder.read(ImageLabels::Folders, Split::Train).unwrap();
    assert_eq!((data.n_classes, data.len()), (3, 2));
    let notes = data.notes().join("; ");
    for part in ["3 hidden files", "'a/.hidden.jpg'", "2 files that are no images by name", "'lost.png'"] {
        assert!(notes.contains(part), "{part}: {notes}");
    }
}

#[test]
fn folders_that_cannot_be_used_are_refused_with_a_remedy() {
    let empty = Folder::new(&[]);
    assert!(empty.refusal(ImageLabels::Folders, OnError::Skip).contains("holds no image; a sub-folder for each class"));
    empty.write("readme.txt", b"x");
    let message = empty.refusal(ImageLabels::None, OnError::Skip);
    assert!(message.contains("1 files that are no images by name: 'readme.txt'"), "{message}");
    let flat = Folder::new(&[("1.png", 1), ("2.png", 2)]);
    assert!(flat.refusal(ImageLabels::Folders, OnError::Skip).contains("say `labels: None`"));
    let one = Folder::new(&[("cat/1.png", 1), ("cat/2.png", 2)]);
    let message = one.refusal(ImageLabels::Folders, OnError::Skip);
    assert!(message.contains("has one class folder, 'cat', expected at least two"), "{message}");
    let single = Folder::new(&[("cat/1.png", 1), ("cat/2.png", 2), ("dog/3.png", 3)]);
    let message = single.refusal(ImageLabels::Folders, OnError::Stop);
    assert!(message.contains("1 classes with one image only: 'dog'"), "{message}");
    let train = single.read(ImageLabels::Folders, Split::Train).unwrap();
    assert!(train.notes().join(";").contains("'dog': for training only") && train.len() == 2, "{:?}", train.notes());
    let absent = "images:no/such/folder".parse::<DatasetSource>().unwrap();
    let message = absent.read(Path::new("root"), Split::Train).unwrap_err().to_string();
    assert!(message.contains("no/such/folder' is no folder; name the folder"), "{message}");
    let four = ImageNeeds { input: Shape { c: 4, ..INPUT }, outputs: 2, cache: None };
    let message = train.for_network(&four).unwrap_err().to_string();
    assert!(message.contains("the network reads 4; image files feed networks that read one or three"), "{message}");
}

#[test]
fn unreadable_images_are_replaced_counted_and_named_or_end_the_run() {
    let folder = Folder::new(&[("a.png", 1), ("c.png", 3), ("d.png", 4)]);
    folder.write("b.jpg", b"<html>404</html>");
    let cut = fs::read(folder.0.path().join("d.png")).unwrap();
    folder.write("d.png", &cut[..cut.len() / 2]);
    let data = folder.read(ImageLabels::None, Split::Train).unwrap();
    let test = folder.read(ImageLabels::None, Split::Test).unwrap();
    let mut read: Vec<u8> = [&data, &test].into_iter().flat_map(|split| reds(split, None)).map(|(x, _)| x).collect();
    read.sort_unstable();
    let failures = [data.failures(), test.failures()].concat().join("; ");
    assert_eq!((read, data.len() + test.len(), data.labels.as_ref()), (vec![1, 3], 4, None));
    for part in ["could not be read and were left out", "b.jpg': this is a text in HTML", "d.png': PNG"] {
        assert!(failures.contains(part), "{part}: {failures}");
    }
    let data = folder.source(ImageLabels::None, OnError::Stop).read(Path::new(""), Split::Train).unwrap();
    let data = data.for_network(&ImageNeeds { input: INPUT, outputs: 2, cache: None }).unwrap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let order: Vec<usize> = (0..data.len()).collect();
    let message = data.load_first(9, &order, &Preprocessing::imagenet(), &pool).unwrap_err().to_string();
    assert!(message.contains(".jpg'") || message.contains(".png'"), "{message}");
    assert!(message.contains("say `on_error: Skip`"), "{message}");
}

/// What is kept is used as long as the image is the same, and damage to it is noticed; a folder that cannot be written
/// is told once.
#[test]
fn decoded_images_are_kept_by_content_and_a_full_disk_is_told() {
    let folder = Folder::new(&[("a.png", 1), ("b.png", 2), ("c.png", 3)]);
    let kept = tempfile::tempdir().unwrap();
    let read = |cache: &Path| {
        let data = folder.read(ImageLabels::None, Split::Train).unwrap();
        (reds(&data, Some(cache)), data)
    };
    let (first, _) = read(kept.path());
    let files = || -> Vec<_> {
        let folders =
            fs::read_dir(kept.path()).unwrap().flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap());
        folders.map(|file| file.unwrap().path()).collect()
    };
    assert_eq!((first.len(), files().len()), (2, 2));
    // Marked, to be seen in use; then damaged, to be seen not in use.
    for (mark, is_whole) in [(200u8, true), (100, false)] {
        for file in files() {
            let pixels = vec![mark; INPUT.len()];
            let hash = blake3::hash(&pixels);
            let hash = if is_whole { *hash.as_bytes() } else { [0; 32] };
            fs::write(file, [&pixels[..], &hash].concat()).unwrap();
        }
        let reds: Vec<u8> = read(kept.path()).0.iter().map(|(x, _)| *x).collect();
        let expected = if is_whole { vec![200; 2] } else { first.iter().map(|(x, _)| *x).collect() };
        assert_eq!(reds, expected);
    }
    // A file stands where the folder should be: what a full disk does, the system refuses to write.
    let full = kept.path().join("full");
    fs::write(&full, b"").unwrap();
    let data = folder.read(ImageLabels::None, Split::Train).unwrap();
    let data = data.for_network(&ImageNeeds { input: INPUT, outputs: 2, cache: Some(&full) }).unwrap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let loaded = data.load_first(2, &[0, 1], &Preprocessing::imagenet(), &pool).unwrap();
    let told = data.failures();
    assert!(loaded.indices == [0, 1] && told.len() == 1, "{told:?}");
    assert!(
        told[0].contains("full': ") && told[0].contains("free some space there, or say `cache: false`"),
        "{told:?}"
    );
}

#[test]
fn the_command_line_says_what_a_scene_says() {
    let parse = |text: &str| text.parse::<DatasetSource>();
    let DatasetSource::Images { dir, labels, test, on_error, cache, .. } =
        parse("images:a b/c,labels=none,test=d,on_error=stop,cache=off,resize=40,channels=bgr").unwrap()
    else {
        unreachable!()
    };
    assert_eq!((dir.as_str(), labels, test.as_deref()), ("a b/c", ImageLabels::None, Some("d")));
    assert_eq!((on_error, cache), (OnError::Stop, false));
    for (bad, expected) in [
        ("images", "expected images:DIR"),
        ("images:", "expected images:DIR"),
        ("images:x,labels", "unknown choice 'labels'"),
        ("images:x,resize=big", "expected a number of pixels or exact"),
        ("images:x,resize=0", "expected 1..=16384"),
    ] {
        let message = parse(bad).unwrap_err().to_string();
        assert!(message.contains(expected), "{bad}: {message}");
    }
}

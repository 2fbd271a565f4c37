//! What the simulated disk promises, and what it takes away.

use std::{io, path::Path};

use world::{Disk, DiskFile, LockError, sim::SimDisk};

fn file(disk: &SimDisk, name: &str) -> Box<dyn DiskFile> {
    disk.create_dir(Path::new("/d")).unwrap();
    disk.create(&Path::new("/d").join(name)).unwrap()
}

fn read(disk: &SimDisk, name: &str) -> Option<Vec<u8>> {
    disk.contents(&Path::new("/d").join(name))
}

#[test]
fn what_was_synced_survives_a_power_loss() {
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        let a = file(&disk, "a");
        a.write_at(0, b"kept").unwrap();
        a.sync_data().unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        a.write_at(4, &[7; 2000]).unwrap();

        disk.restart();

        let contents = read(&disk, "a").unwrap();
        assert_eq!(&contents[..4], b"kept");
        assert!(contents[4..].iter().all(|byte| *byte == 7 || *byte == 0));
        assert!(
            a.write_at(0, b"x").is_err(),
            "who held the file before holds nothing now"
        );
    }
}

#[test]
fn what_was_not_synced_is_kept_or_lost_or_torn() {
    let (mut none, mut all, mut torn) = (0, 0, 0);
    for seed in 0..100 {
        let disk = SimDisk::new(seed);
        let a = file(&disk, "a");
        disk.sync_dir(Path::new("/d")).unwrap();
        a.write_at(0, &[7; 4096]).unwrap();
        disk.restart();
        match read(&disk, "a").unwrap().iter().filter(|byte| **byte == 7).count() {
            0 => none += 1,
            4096 => all += 1,
            _ => torn += 1,
        }
    }
    assert!(none > 10 && all > 10 && torn > 10, "{none} {all} {torn}");
}

#[test]
fn a_name_lasts_once_its_folder_is_synced() {
    let mut lost = 0;
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        file(&disk, "a").sync_data().unwrap();
        disk.restart();
        lost += usize::from(read(&disk, "a").is_none());
    }
    assert!(lost > 5 && lost < 45, "{lost}");
}

#[test]
fn a_sync_that_failed_has_dropped_what_it_should_have_written() {
    let disk = SimDisk::new(1);
    let a = file(&disk, "a");
    disk.sync_dir(Path::new("/d")).unwrap();
    a.write_at(0, b"lost").unwrap();
    disk.fail_sync_after(0);

    assert!(a.sync_data().is_err());
    assert!(a.sync_data().is_ok(), "and the next one says that all is well");

    assert_eq!(read(&disk, "a").unwrap(), b"lost");
    disk.restart();
    assert_eq!(read(&disk, "a").unwrap(), b"");
}

#[test]
fn a_full_disk_takes_what_it_has_room_for() {
    let disk = SimDisk::new(1);
    let a = file(&disk, "a");
    disk.set_capacity(10);
    a.write_at(0, b"01234567").unwrap();

    let error = a.write_at(8, b"89ab").unwrap_err();

    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(read(&disk, "a").unwrap(), b"0123456789");
    a.write_at(0, b"xx").expect("what is there can be written over");
}

#[test]
fn the_same_seed_is_the_same_luck() {
    let after = |seed| {
        let disk = SimDisk::new(seed);
        let a = file(&disk, "a");
        disk.sync_dir(Path::new("/d")).unwrap();
        for at in 0..20 {
            a.write_at(at * 300, &[at as u8; 300]).unwrap();
        }
        disk.restart();
        read(&disk, "a")
    };
    for seed in 0..20 {
        assert_eq!(after(seed), after(seed));
    }
}

#[test]
fn a_lock_is_held_once_and_ends_with_its_holder() {
    let disk = SimDisk::new(1);
    let held = disk.lock(Path::new("/d/lock")).unwrap();
    assert!(matches!(disk.lock(Path::new("/d/lock")), Err(LockError::Held { .. })));
    drop(held);
    disk.lock(Path::new("/d/lock")).unwrap();
}

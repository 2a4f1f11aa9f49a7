//! The journal against a slow, obvious model: a list of batches. After any crash what is recovered must be the batches
//! committed for certain, perhaps followed by whole batches that were appended but not acknowledged.

use bootstorm_journal::sim::{Fault, Random, SimDisk};
use bootstorm_journal::{Error, Journal, JournalThread, Live, OnDamage, Report, SubmitError, limits};
use std::sync::mpsc;

/// What the journal should hold: all batches (a compaction replaces them by one) and how many are surely durable.
#[derive(Clone, Default, Debug)]
struct Model {
    batches: Vec<Vec<Vec<u8>>>,
    durable: usize,
    /// A compaction that failed midway may have come through: the other state that is right too.
    alternative: Option<Vec<Vec<u8>>>,
}

impl Model {
    fn flat(batches: &[Vec<Vec<u8>>]) -> Vec<Vec<u8>> {
        batches.iter().flatten().cloned().collect()
    }

    /// Whether these records are a right answer.
    fn allows(&self, records: &[Vec<u8>]) -> bool {
        (self.durable..=self.batches.len()).any(|count| Model::flat(&self.batches[..count]) == records)
            || self.alternative.as_deref() == Some(records)
    }
}

fn payload(random: &mut Random) -> Vec<u8> {
    let length = match random.below(4) {
        0 => random.below(3),
        1 => 300 + random.below(900),
        _ => random.below(120),
    };
    (0..length).map(|_| random.next_u64() as u8).collect()
}

fn batch(random: &mut Random) -> Vec<Vec<u8>> {
    (0..1 + random.below(6)).map(|_| payload(random)).collect()
}

fn recovered(disk: &SimDisk) -> (Journal<SimDisk>, Vec<Vec<u8>>, u64) {
    let (journal, recovered) = Journal::open(disk.clone(), OnDamage::Refuse).unwrap_or_else(|error| panic!("{error}"));
    let records = recovered.records().map(|(_, payload)| payload.to_vec()).collect();
    (journal, records, recovered.last_sequence)
}

/// What a compaction is to hold; now and then more than one slice of it.
fn live_records(random: &mut Random) -> Vec<Vec<u8>> {
    let mut live: Vec<Vec<u8>> = (0..random.below(8)).map(|_| payload(random)).collect();
    if random.below(32) == 0 {
        live.extend((0..3).map(|n| vec![n; 150_000]));
    }
    live
}

/// One life of the journal: steps until the fault strikes or the steps are done; then the model says what may be left.
fn live(journal: &mut Journal<SimDisk>, model: &mut Model, random: &mut Random, steps: usize) {
    // What a compaction under way is to hold, and the batches there were when it began.
    let mut under_way: Option<(Vec<Vec<u8>>, usize)> = None;
    for _ in 0..steps {
        match random.below(12) {
            10 if under_way.is_none() => {
                let live = live_records(random);
                if journal.begin_compaction(live.clone()).is_ok() {
                    under_way = Some((live, model.batches.len()));
                }
            }
            10 | 11 => {
                let Some((live, begun)) = under_way.take() else { continue };
                let tail = model.batches[begun..].to_vec();
                match journal.step_compaction() {
                    Ok(None) => under_way = Some((live, begun)),
                    Ok(Some(committed)) => {
                        assert_eq!(committed.last_sequence, journal.last_sequence());
                        let batches = [vec![live], tail].concat();
                        *model = Model { durable: batches.len(), batches, alternative: None };
                    }
                    Err(_) if journal.is_stopped() => {
                        model.alternative = Some(Model::flat(&[vec![live], tail].concat()));
                        return;
                    }
                    Err(_) => {}
                }
            }
            0 if under_way.is_none() => {
                let live = live_records(random);
                match journal.compact(&live) {
                    Ok(_) => *model = Model { batches: vec![live], durable: 1, alternative: None },
                    Err(_) if journal.is_stopped() => {
                        model.alternative = Some(live);
                        return;
                    }
                    Err(_) => {}
                }
            }
            1..=5 => {
                let batch = batch(random);
                let before = journal.last_sequence();
                model.batches.push(batch.clone());
                match journal.append(&batch) {
                    Ok(sequences) => {
                        assert_eq!(*sequences.start(), before + 1);
                        assert_eq!(*sequences.end(), before + batch.len() as u64);
                    }
                    Err(_) => return,
                }
            }
            _ => match journal.commit() {
                Ok(committed) => {
                    assert_eq!(committed.last_sequence, journal.last_sequence());
                    model.durable = model.batches.len();
                }
                Err(_) => return,
            },
        }
    }
}

#[test]
fn every_crash_image_recovers_to_whole_batches() {
    // Twelve images a seed: 1,800, and 10,800 with BOOTSTORM_LONG set.
    let seeds = if std::env::var_os("BOOTSTORM_LONG").is_some() { 900 } else { 150u64 };
    let mut images = 0;
    for seed in 0..seeds {
        let mut random = Random(seed);
        let mut disk = SimDisk::new(seed);
        let mut model = Model { batches: Vec::new(), durable: 0, alternative: None };
        // Several lives of one directory: each ends by a fault or in the middle, then the power goes.
        for life in 0..4 {
            let (mut journal, records, _) = recovered(&disk);
            assert!(model.allows(&records), "seed {seed} life {life}: {} records", records.len());
            model = Model { batches: vec![records], durable: 1, alternative: None };
            if random.below(2) == 0 {
                let fault = [Fault::Sync, Fault::NoSpace, Fault::All][random.below(3)];
                disk.fail_at(fault, disk.operations() + random.below(20) as u64);
            }
            live(&mut journal, &mut model, &mut random, 30);
            // Many images of the same moment; each must be right. One of them is what the next life starts from.
            for _ in 0..3 {
                images += 1;
                let image_seed = random.next_u64();
                let (_, records, _) = recovered(&disk.crash(image_seed));
                assert!(model.allows(&records), "seed {seed} life {life} image {image_seed}");
            }
            disk = disk.crash(random.next_u64());
        }
    }
    assert_eq!(images, seeds * 12);
}

#[test]
fn opening_again_after_a_crash_during_opening_loses_nothing() {
    for seed in 0..100u64 {
        let disk = SimDisk::new(seed);
        let (mut journal, _, _) = recovered(&disk);
        journal.append(&[b"kept".to_vec()]).unwrap();
        journal.commit().unwrap();
        journal.append(&[vec![1; 2000], vec![2; 2000]]).unwrap();
        let torn = disk.crash(seed);
        for stop in 0..4 {
            let again = torn.fork();
            again.fail_at(Fault::All, stop);
            let _ = Journal::open(again.clone(), OnDamage::Refuse);
            let (_, records, _) = recovered(&again.crash(seed + 7));
            assert_eq!(records.first().map(Vec::as_slice), Some(b"kept".as_slice()), "seed {seed} stop {stop}");
            assert!(records.len() == 1 || records.len() == 3, "seed {seed} stop {stop}");
        }
    }
}

#[test]
fn a_failed_sync_stops_the_journal_for_good() {
    let disk = SimDisk::new(1);
    let (mut journal, _, _) = recovered(&disk);
    journal.append(&[b"one"]).unwrap();
    disk.fail_at(Fault::Sync, 0);
    assert!(matches!(journal.commit(), Err(Error::Disk { operation: "sync", .. })));
    assert!(matches!(journal.commit(), Err(Error::Stopped)));
    assert!(matches!(journal.append(&[b"two"]), Err(Error::Stopped)));
    assert!(matches!(journal.compact(&[b"three"]), Err(Error::Stopped)));
}

#[test]
fn a_full_disk_stops_appends_but_not_the_old_segment_of_a_compaction() {
    let disk = SimDisk::new(2);
    let (mut journal, _, _) = recovered(&disk);
    journal.append(&[b"one"]).unwrap();
    journal.commit().unwrap();
    disk.fail_at(Fault::NoSpace, 0);
    assert!(journal.compact(&[b"live"]).is_err());
    assert!(!journal.is_stopped());
    disk.fail_at(Fault::NoSpace, u64::MAX);
    journal.append(&[b"two"]).unwrap();
    journal.commit().unwrap();
    disk.fail_at(Fault::NoSpace, 0);
    assert!(journal.append(&[b"three"]).is_err());
    assert!(matches!(journal.append(&[b"four"]), Err(Error::Stopped)));
    let (_, records, last) = recovered(&disk.crash(5));
    assert_eq!(records, [b"one".to_vec(), b"two".to_vec()]);
    assert_eq!(last, 2);
}

fn segment(disk: &SimDisk) -> String {
    let mut disk = disk.clone();
    bootstorm_journal::Disk::list(&mut disk).unwrap().pop().unwrap()
}

#[test]
fn a_flipped_bit_is_never_read_as_a_record() {
    // Three committed batches. A bit in the first two was durable and a later record knows it: refused, and the whole
    // prefix on request. In the last batch it cannot be told from a torn write: cut off.
    let disk = SimDisk::new(3);
    let (mut journal, _, _) = recovered(&disk);
    let batches = [vec![b"a1".to_vec(), b"a2".to_vec()], vec![b"b1".to_vec()], vec![b"c1".to_vec()]];
    let mut ends = Vec::new();
    for batch in &batches {
        journal.append(batch).unwrap();
        ends.push(journal.commit().unwrap().segment_bytes as usize);
    }
    drop(journal);
    let name = segment(&disk);
    for bit in (96 * 8)..ends[2] * 8 {
        let bad = disk.fork();
        bad.flip(&name, bit);
        let whole: Vec<Vec<u8>> =
            batches.iter().zip(&ends).take_while(|(_, end)| **end <= bit / 8).flat_map(|(b, _)| b.clone()).collect();
        if bit / 8 < ends[1] {
            assert!(matches!(Journal::open(bad.fork(), OnDamage::Refuse), Err(Error::Damaged { .. })), "bit {bit}");
        }
        let (_, kept) = Journal::open(bad, OnDamage::KeepWholePrefix).unwrap();
        assert_eq!(kept.records().map(|(_, p)| p.to_vec()).collect::<Vec<_>>(), whole, "bit {bit}");
        assert_eq!(kept.damaged, bit / 8 < ends[1]);
    }
    for bit in 0..96 * 8 {
        let bad = disk.fork();
        bad.flip(&name, bit);
        assert!(matches!(Journal::open(bad, OnDamage::KeepWholePrefix), Err(Error::BadHeader { .. })), "bit {bit}");
    }
}

#[test]
fn a_damaged_snapshot_is_refused() {
    let disk = SimDisk::new(4);
    let (mut journal, _, _) = recovered(&disk);
    journal.compact(&[b"x".to_vec(), b"y".to_vec()]).unwrap();
    disk.flip(&segment(&disk), 100 * 8);
    assert!(matches!(Journal::open(disk.clone(), OnDamage::Refuse), Err(Error::Damaged { last_sequence: 0, .. })));
    let (mut journal, kept) = Journal::open(disk.clone(), OnDamage::KeepWholePrefix).unwrap();
    assert!(kept.damaged && kept.is_empty());
    journal.append(&[b"z"]).unwrap();
    journal.commit().unwrap();
    assert_eq!(recovered(&disk).1, [b"z".to_vec()]);
}

#[test]
fn sequences_go_on_over_compaction_and_opening() {
    let disk = SimDisk::new(5);
    let (mut journal, _, _) = recovered(&disk);
    assert_eq!(journal.append(&[b"a", b"b"]).unwrap(), 1..=2);
    assert_eq!(journal.compact(&[b"ab"]).unwrap().last_sequence, 2);
    assert_eq!(journal.append(&[b"c"]).unwrap(), 3..=3);
    journal.commit().unwrap();
    drop(journal);
    let (mut journal, all) = Journal::open(disk.crash(1), OnDamage::Refuse).unwrap();
    assert_eq!(all.records().collect::<Vec<_>>(), [(2, b"ab".as_slice()), (3, b"c".as_slice())]);
    assert_eq!(journal.epoch(), 2);
    assert_eq!(journal.append(&[b"d"]).unwrap(), 4..=4);
}

#[test]
fn limits_are_refused_with_nothing_changed() {
    let (mut journal, _, _) = recovered(&SimDisk::new(6));
    let long = vec![0u8; limits::RECORD_BYTES_MAX + 1];
    assert!(matches!(journal.append(&[long]), Err(Error::RecordTooLarge { .. })));
    assert!(matches!(journal.append::<&[u8]>(&[]), Err(Error::BatchTooLarge { .. })));
    assert!(matches!(journal.append(&vec![b"x"; 513]), Err(Error::BatchTooLarge { records: 513, .. })));
    assert!(matches!(
        journal.append(&vec![vec![0u8; limits::RECORD_BYTES_MAX]; 8]),
        Err(Error::BatchTooLarge { records: 8, .. })
    ));
    assert_eq!(journal.append(&[vec![0u8; limits::RECORD_BYTES_MAX]]).unwrap(), 1..=1);
}

#[test]
fn the_thread_reports_every_sequence_in_order_and_groups_them() {
    let disk = SimDisk::new(7);
    let (journal, _, _) = recovered(&disk);
    let (reports, received) = mpsc::channel();
    let mut thread = JournalThread::spawn(journal, move |report| {
        let _ = reports.send(report);
    })
    .unwrap();
    let before = disk.operations();
    for count in 1..=2000u64 {
        let mut payloads = vec![count.to_le_bytes().to_vec()];
        loop {
            match thread.submit(payloads) {
                Ok(sequence) => break assert_eq!(sequence, count),
                Err(SubmitError::Busy(back)) => {
                    // Full: the next report says that there is room.
                    payloads = back;
                    received.recv().unwrap();
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    thread.compact(vec![b"all".to_vec()]).unwrap();
    thread.submit(vec![b"after".to_vec(), b"wards".to_vec()]).unwrap();
    thread.close();
    let mut last = 0;
    for report in received.try_iter() {
        match report {
            Report::Committed(committed) | Report::Compacted(committed) => {
                assert!(committed.last_sequence >= last);
                last = committed.last_sequence;
            }
            Report::CompactionFailed(error) | Report::Stopped(error) => panic!("{error}"),
        }
    }
    assert_eq!(last, 2002);
    assert!(disk.operations() - before < 4100);
    let (_, records, last) = recovered(&disk.crash(3));
    assert_eq!(records, [b"all".to_vec(), b"after".to_vec(), b"wards".to_vec()]);
    assert_eq!(last, 2002);
}

#[test]
fn records_that_are_not_as_was_said_change_nothing() {
    let disk = SimDisk::new(12);
    let (mut journal, _, _) = recovered(&disk);
    journal.append(&[b"kept".to_vec()]).unwrap();
    let two = || [b"ab".to_vec(), b"cd".to_vec()].into_iter();
    for (count, bytes) in [(1, 4), (3, 4), (2, 3), (2, 5), (0, 0)] {
        journal.begin_compaction(Live::new(two(), count, bytes)).unwrap();
        assert!(matches!(journal.begin_compaction(vec![]), Err(Error::Compacting)));
        assert!(matches!(journal.step_compaction(), Err(Error::Contradiction)), "{count} records, {bytes} bytes");
        assert!(!journal.is_stopped() && !journal.is_compacting());
    }
    journal.commit().unwrap();
    assert_eq!(recovered(&disk.crash(1)).1, [b"kept".to_vec()]);
    journal.begin_compaction(Live::new(two(), 2, 4)).unwrap();
    journal.append(&[b"after".to_vec()]).unwrap();
    let committed = journal.commit().unwrap();
    assert!(!committed.compaction_due && journal.is_compacting());
    assert_eq!(journal.step_compaction().unwrap().map(|committed| committed.last_sequence), Some(2));
    let (journal, records, last) = recovered(&disk.crash(2));
    assert_eq!((records, last, journal.epoch()), (vec![b"ab".to_vec(), b"cd".to_vec(), b"after".to_vec()], 2, 2));
}

#[test]
fn the_thread_stops_after_a_failed_sync_and_says_so() {
    let disk = SimDisk::new(8);
    let (journal, _, _) = recovered(&disk);
    let (reports, received) = mpsc::channel();
    let mut thread = JournalThread::spawn(journal, move |report| {
        let _ = reports.send(report);
    })
    .unwrap();
    thread.submit(vec![b"good".to_vec()]).unwrap();
    assert!(matches!(received.recv().unwrap(), Report::Committed(committed) if committed.last_sequence == 1));
    disk.fail_at(Fault::Sync, 0);
    thread.submit(vec![b"lost".to_vec()]).unwrap();
    assert!(matches!(received.recv().unwrap(), Report::Stopped(Error::Disk { .. })));
    assert!(received.recv().is_err(), "the thread has ended and dropped its reporter");
    assert!(matches!(thread.submit(vec![b"no".to_vec()]), Err(SubmitError::Stopped(_))));
}

use super::*;
use crate::store::conformance;
use crate::system::private::tests::directory;

#[test]
fn the_system_store_conforms() {
    let state_dir = directory();
    make(state_dir.path()).unwrap();
    conformance::check(&SystemStore { state_dir: state_dir.path(), homes: None });
}

#[test]
fn a_record_that_could_be_stored_has_room_for_logins() {
    use crate::otp::{Algorithm, Answer, Digits, Form, Generator};
    use crate::record::{Device, Kind, Totp};
    use crate::verify::{self, Rules, Try};

    const STEP: u64 = 59_853_000;
    let device = |number: u8| {
        let (algorithm, digits, period) = (Algorithm::Sha1, Digits::SIX, 30);
        let (window, skew, drift, used) = (None, 0, Vec::new(), Ok(None));
        let kind = Ok(Kind::Totp(Totp { algorithm, digits, period, window, skew, drift, used }));
        let secret = Ok(Arc::new(Secret::new(vec![number; 20])));
        Device { name: format!("device {number}"), secret, kind, added: Some(STEP * 30), last_used: None }
    };
    let (state_dir, person) = (directory(), Person::running_this_process());
    make(state_dir.path()).unwrap();
    let store = SystemStore { state_dir: state_dir.path(), homes: None };
    store.enrol(&person, &Record::of(vec![device(0)]), false).unwrap();
    let add = |record: &mut Record| {
        record.devices.push(device(u8::try_from(record.devices.len()).unwrap()));
        Ok(())
    };
    while store.change(&person, &mut { add }).is_ok() {}
    // Nor may anything else take that room.
    let grows: [fn(&mut Record); 2] = [
        |record| record.recovery = RecoveryCodes::new([0; 16], [&b"one"[..]; 10]),
        |record| record.devices.iter_mut().for_each(|device| device.name += &" and more".repeat(4)),
    ];
    for grow in grows {
        let change = &mut |record: &mut Record| {
            grow(record);
            Ok(())
        };
        assert_eq!(store.change(&person, change).unwrap_err().into_fact().word(), "record-too-large");
    }
    let devices = store.load(&person).unwrap().devices;
    assert!(devices.len() > 12, "{}", devices.len());
    for device in devices {
        let secret = device.secret.as_ref().ok().unwrap();
        let code = Generator::new(secret, Algorithm::Sha1, Digits::SIX).code(STEP);
        let answer = Answer::new(Secret::new(code.expose().clone().into_bytes()), Form::Code, false);
        let (rules, attempt) = (Rules::default(), Try::new(&answer));
        let charge = |record: &Record| verify::charge(record, &rules, &attempt, STEP * 30);
        let verdict = store.attempt(&person, &charge).unwrap().verdict;
        assert!(matches!(verdict, Verdict::Accepted(_)), "{}: {verdict:?}", device.name);
    }
}

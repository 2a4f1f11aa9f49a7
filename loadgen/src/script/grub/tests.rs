//! GRUB followed step by step.

use std::time::Duration;

use super::super::tests::at;
use super::*;

fn grub(loader: &str) -> Grub {
    let mac = ("net_default_mac".to_owned(), "02:00:00:00:00:01".to_owned());
    Grub::new(at(loader), "x86_64-efi", None, [mac, ("net_default_ip".to_owned(), "10.0.0.10".to_owned())])
}

/// The names fetched until the configuration is asked for, all lists absent.
fn begin(grub: &mut Grub) -> Vec<String> {
    let mut names = Vec::new();
    loop {
        match grub.next() {
            Step::Fetch(What::Script, location) => {
                names.push(name(&location));
                if !location.file_name().ends_with(".lst") {
                    return names;
                }
            }
            Step::Fetch(What::Module, location) => names.push(name(&location)),
            other => panic!("{other:?}"),
        }
        let is_grub = names.last().is_some_and(|name| name.contains("grubx64"));
        grub.done(if is_grub { Outcome::Success } else { Outcome::Failure });
    }
}

fn name(location: &Location) -> String {
    match location {
        Location::Http(url) => url.target.clone(),
        Location::Tftp(_, name) => name.clone(),
    }
}

fn follow(configuration: &str) -> Grub {
    let mut grub = grub("tftp://10.0.0.1/grubx64.efi");
    begin(&mut grub);
    grub.take(configuration).unwrap();
    grub
}

#[test]
fn shim_and_grub_ask_for_their_parts_first() {
    let expected = [
        "boot/revocations_sku.efi",
        "boot/revocations_sbat.efi",
        "boot/shim_certificate_0.efi",
        "boot/grubx64.efi",
        "/grub/x86_64-efi/command.lst",
        "/grub/x86_64-efi/fs.lst",
        "/grub/x86_64-efi/crypto.lst",
        "/grub/x86_64-efi/terminal.lst",
        "/grub/grub.cfg",
    ];
    assert_eq!(begin(&mut grub("tftp://10.0.0.1/boot/shimx64.efi")), expected);
    assert_eq!(begin(&mut grub("http://10.0.0.1/grubx64.efi")), expected[4..]);
}

#[test]
fn a_shim_without_grub_fails() {
    let mut grub = grub("tftp://10.0.0.1/shimx64.efi");
    for _ in 0..4 {
        assert!(matches!(grub.next(), Step::Fetch(What::Module, _)));
        grub.done(Outcome::Failure);
    }
    assert_eq!(grub.next(), Step::Failed("script failed at `grubx64.efi`".to_owned()));
}

#[test]
fn the_default_entry_of_the_menu_is_booted() {
    let mut grub = follow(
        "set default=\"second\"\nset timeout=5\nset args='a=1 b=2'\n\
         menuentry 'First' { linux /one }\n\
         menuentry 'Second' --class x --id second {\n  echo loading\n  linuxefi (http,10.0.0.2:8080)/k mac=$net_default_mac $args\n\
         initrdefi (tftp,10.0.0.3)/i (http,10.0.0.2)/j\n}\n",
    );
    assert_eq!(grub.next(), Step::Fetch(What::Kernel, at("http://10.0.0.2:8080/k")));
    grub.done(Outcome::Success);
    let tftp = Location::Tftp(Ipv4Addr::new(10, 0, 0, 3), "/i".to_owned());
    assert_eq!(grub.next(), Step::Fetch(What::Initrd, tftp));
    grub.done(Outcome::Success);
    assert_eq!(grub.next(), Step::Fetch(What::Initrd, at("http://10.0.0.2/j")));
    grub.done(Outcome::Success);
    assert_eq!(grub.next(), Step::Boot("mac=02:00:00:00:00:01 a=1 b=2".to_owned()));
}

#[test]
fn further_configurations_are_read_and_submenus_opened() {
    let mut grub = follow("source /vars.cfg\nconfigfile /grub/grub.cfg-$net_default_mac\n");
    assert!(matches!(grub.next(), Step::Fetch(What::Script, location) if location.file_name() == "vars.cfg"));
    grub.take("set default='1>0'\nexport default\n").unwrap();
    let own = "grub.cfg-02:00:00:00:00:01";
    assert!(matches!(grub.next(), Step::Fetch(What::Script, location) if location.file_name() == own));
    grub.take("menuentry a { exit }\nsubmenu b { menuentry c { linux /k x }\n }\n").unwrap();
    assert!(matches!(grub.next(), Step::Fetch(What::Kernel, location) if location.file_name() == "k"));
    grub.done(Outcome::Success);
    assert_eq!(grub.next(), Step::Boot("x".to_owned()));
}

/// What a GRUB 2.06 made by grub-mknetdir asked dnsmasq for, and what it printed: loadgen's first GRUB stopped at `regexp`,
/// took `search` and `-e` for true and asked for no configuration of the machine's own.
#[test]
fn a_grub_with_modules_on_the_network_looks_for_its_machines_configuration() {
    let mut grub = grub("tftp://10.0.0.1/boot/grub/x86_64-efi/core.efi");
    let folder = "/boot/grub/x86_64-efi";
    let own = ["01-02-00-00-00-00-01", "0A00000A", "0A00000", "0A0000", "0A000", "0A00", "0A0", "0A", "0"];
    let mut expected = ["normal", "gzio"].map(|module| format!("{folder}/{module}.mod")).to_vec();
    expected.extend(own.map(|suffix| format!("/boot/grub/grub.cfg-{suffix}")));
    expected.extend(["command", "fs", "crypto", "terminal"].map(|list| format!("{folder}/{list}.lst")));
    expected.push("/boot/grub/grub.cfg".to_owned());
    let mut names = Vec::new();
    loop {
        let Step::Fetch(what, location) = grub.next() else { panic!("{names:?}") };
        names.push(name(&location));
        match (what, location.file_name()) {
            (_, "command.lst") => grub.take("*[: test\n*echo: echo\n*linux: linux\n").unwrap(),
            (What::Script, _) => break,
            (_, "normal.mod") => assert!(grub.take_module(b"no module")),
            _ => grub.done(Outcome::Failure),
        }
    }
    assert_eq!(names, expected);
    grub.take("echo a\necho b\ninsmod part_gpt\nif [ -s /k ]; then linux /k; boot; fi\n").unwrap();
    let fetched = ["echo.mod", "part_gpt.mod", "test.mod"].map(|name| format!("{folder}/{name}"));
    let fetched = fetched.into_iter().chain(["/k".to_owned(), format!("{folder}/linux.mod"), "/k".to_owned()]);
    for expected in fetched {
        assert!(matches!(grub.next(), Step::Fetch(_, location) if name(&location) == expected), "{expected}");
        match expected.ends_with(".mod") {
            true => assert!(grub.take_module(b"no module")),
            false => grub.done(Outcome::Success),
        }
    }
    assert_eq!(grub.next(), Step::Boot(String::new()));
}

#[test]
fn a_configuration_of_the_machines_own_comes_first() {
    let mut grub = grub("tftp://10.0.0.1/boot/grub/i386-pc/core.0");
    let mut names = Vec::new();
    loop {
        let Step::Fetch(what, location) = grub.next() else { panic!("{names:?}") };
        let name = location.file_name().to_owned();
        let is_there = name == "grub.cfg-0A0000";
        names.push(name);
        if grub.take_module(b"no module") {
            continue;
        }
        if what == What::Script && is_there {
            break;
        }
        grub.done(if is_there { Outcome::Success } else { Outcome::Failure });
    }
    let last = names.iter().rev().take(6).rev().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(last, ["grub.cfg-0A0000", "command.lst", "fs.lst", "crypto.lst", "terminal.lst", "grub.cfg-0A0000"]);
}

#[test]
fn where_a_configuration_is_goes_by_the_loaders_name() {
    let first = |loader: &str| begin(&mut grub(loader)).pop();
    let installer = "tftp://10.0.0.1/debian-installer/amd64/bootnetx64.efi";
    assert_eq!(first(installer).as_deref(), Some("/debian-installer/amd64/grub/grub.cfg"));
    assert_eq!(first("tftp://10.0.0.1/boot/grubx64.efi").as_deref(), Some("/grub/grub.cfg"));
    let mut named = Grub::new(at("tftp://10.0.0.1/grubx64.efi"), "x86_64-efi", Some("/efi/debian"), []);
    assert_eq!(begin(&mut named).pop().as_deref(), Some("/efi/debian/grub.cfg"));
}

/// Each as GRUB 2.06 did it in a guest.
#[test]
fn configurations_of_distributions_are_followed() {
    let mut grub = follow(
        "if [ x$feature_default_font_path = xy ] ; then\n font=unicode\nelse\n font=$prefix/font.pf2\nfi\n\
         if loadfont $font ; then\n set gfx=yes\nfi\n\
         if background_image /isolinux/splash.png; then set picture=1\n\
         elif background_image /splash.png; then set picture=2; fi\n\
         if [ -e /vmlinuz -o -f $prefix/grub.cfg ]; then set sees=yes; else set sees=no; fi\n\
         if search --no-floppy --file --set=root /vmlinuz; then set found=yes; else set found=no; fi\n\
         if ! [ x = y ]; then set not=works; fi\n\
         regexp --set=1:a --set 2:b '^([0-9a-f]*)\\:([0-9a-f]*)' \"$net_default_mac\"\n\
         if regexp ^zz abc; then set c=matches; else set c=differs; fi\n\
         function f {\n set in=\"$1 $#\"\n return 3\n set in=not\n}\nf one\nset code=$?\n\
         for x in p q r; do if [ $x = r ]; then break; fi; set all=$all$x; done\n\
         while [ \"$n\" != xxx ]; do set n=x$n; done\n\
         configfile $prefix/none.cfg\nset after=$?\n\
         set plain=1\nset seen=1\nexport seen\nexport gfx picture sees found not a b c in code all n after\n\
         configfile ($root)/last.cfg\n",
    );
    let mut fetched = Vec::new();
    loop {
        match grub.next() {
            Step::Fetch(What::Script, location) if location.file_name() == "last.cfg" => break,
            Step::Fetch(_, location) => fetched.push(name(&location)),
            other => panic!("{other:?}"),
        }
        grub.done(if fetched.ends_with(&["/splash.png".to_owned()]) { Outcome::Success } else { Outcome::Failure });
    }
    assert_eq!(fetched, ["/isolinux/splash.png", "/splash.png", "/grub/none.cfg"]);
    let line = "linux /k plain=$plain $seen $gfx $picture $sees $found $not $a:$b $c $in $code $all $n $after\n";
    grub.take(&format!("menuentry a {{\n{line}}}\n")).unwrap();
    assert!(matches!(grub.next(), Step::Fetch(What::Kernel, location) if name(&location) == "/k"));
    grub.done(Outcome::Success);
    let line = "plain= 1 yes 2 no no works 02:00 differs one 1 1 pq xxx 0";
    assert_eq!(grub.next(), Step::Boot(line.to_owned()));
}

#[test]
fn an_entry_that_loads_nothing_gives_way_to_its_fallback() {
    let mut grub = follow(
        "set default=a\nset fallback=\"b\"\nif true; then\n menuentry A --id a { linux /gone; initrd /i }\n\
         menuentry B --id b { linux /k }\nfi\n",
    );
    assert!(matches!(grub.next(), Step::Fetch(What::Kernel, location) if name(&location) == "/gone"));
    grub.done(Outcome::Failure);
    assert!(matches!(grub.next(), Step::Fetch(What::Kernel, location) if name(&location) == "/k"));
    grub.done(Outcome::Success);
    assert_eq!(grub.next(), Step::Boot(String::new()));
}

#[test]
fn conditions_decide_and_failures_are_told() {
    let local = "if [ \"$grub_platform\" = pc ]; then\n  set root=(hd0)\n  chainloader +1\n  boot\nfi\nexit\n";
    assert_eq!(follow(local).next(), Step::LocalDisk);
    let both = "if [ $grub_platform = efi -a 1 -lt 2 ]; then exit; fi\n";
    assert_eq!(follow(both).next(), Step::LocalDisk);
    assert!(matches!(follow("if [ a b c d ]; then exit; fi\n").next(), Step::Failed(why) if why.contains("simulated")));
    assert!(matches!(follow("chainloader /x.efi\n").next(), Step::Failed(why) if why.contains("`chainloader`")));
    let mut missing = follow("linux /k\ninitrd /i\nboot\n");
    assert!(matches!(missing.next(), Step::Fetch(What::Kernel, _)));
    missing.done(Outcome::Failure);
    assert_eq!(missing.next(), Step::Failed("script failed at `k`".to_owned()));
    assert_eq!(follow("set timeout=0\n").next(), Step::Failed(ENDED.to_owned()));
    assert_eq!(follow("cat /x\n").next(), Step::Failed("command `cat` is not simulated".to_owned()));
}

#[test]
fn a_configuration_that_waits_may_go_on_with_itself_and_one_that_does_not_loops() {
    let mut waiting = follow("sleep 10\nconfigfile /grub/grub.cfg\n");
    for _ in 0..200 {
        assert_eq!(waiting.next(), Step::Sleep(Duration::from_secs(10)));
        waiting.done(Outcome::Success);
        assert!(matches!(waiting.next(), Step::Fetch(What::Script, _)));
        waiting.take("sleep 10\nconfigfile /grub/grub.cfg\n").unwrap();
    }
    let mut looping = follow("configfile /grub/grub.cfg\n");
    let mut fetches = 0;
    while matches!(looping.next(), Step::Fetch(What::Script, _)) {
        looping.take("configfile /grub/grub.cfg\n").unwrap();
        fetches += 1;
    }
    assert_eq!(fetches, SCRIPTS_WITHOUT_PAUSE_MAX);
    assert_eq!(looping.next(), Step::Failed(LOOPS.to_owned()));
}

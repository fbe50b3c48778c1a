//! Each kind of line, as it looks.

use crate::trace::format::TraceFormat;
use crate::trace::format::testing::*;
use crate::trace::record::testing::any_record;
use proptest::prelude::*;

#[test]
fn lines() {
    let text = String::from_utf8(trace(TraceFormat::Text, &sample())).unwrap();
    let expected = r##"# minivmm trace
# guest="a \"guest\", with\nall" vcpus=2 epoch_unix_ns=1750000000123456789 filter="reason=io-out"
#   time [us] source     number   what           fields
        1.000 vcpu0               start
        1.100 vcpu1               start
       20.001 vcpu0      #0       io-out         port=0x3f8 size=1 count=1 data=0x41 rip=0x1007 <f?"x",0x1007 (é.c:7)> guest=12.345us handler=posted enqueue=0.212us
       30.000 vcpu1      #0       io-in          port=0x3fd size=1 count=1 data=0x60 rip=0x1000 guest=12.345us handler=vcpu wait=1.200us service=0.080us
       40.000 vcpu0               marker         name="phase \"2\", \\\xff"
       50.500 vcpu0      #1       hlt            guest=12.345us handler=run-loop
       50.600 vcpu0               halt
      270.100 devices             served         vcpu0 #0 io-out port=0x3f8 size=1 data=0x41 wait=250.000us service=0.095us
      271.000 devices             interrupt      irq=4 on=true
      280.000 devices             output         offset=0 len=1 took=3.210us
      300.000 vcpu1      #1       fail-entry     code=0x80000021 cpu=3 guest=12.345us handler=pending
      300.900 vcpu1               recording      on=false
      301.000 supervisor          kick           vcpu=vcpu1
      302.000 vcpu1               stop
     9000.000 vcpu0               totals         seen=2 kept=2 filtered=0 dropped=0
     9000.000 supervisor          end
"##;
    assert_eq!(text, expected);
}

proptest! {
    #[test]
    fn each_record_is_a_line(records in prop::collection::vec(any_record(), 0..20)) {
        let text = String::from_utf8(trace(TraceFormat::Text, &records)).unwrap();
        prop_assert_eq!(text.lines().count(), records.len() + 3);
        prop_assert!(!text.contains(|c: char| c.is_control() && c != '\n'));
    }
}

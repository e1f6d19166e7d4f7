package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "delays")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func from(source string) []byte {
	data := make([]byte, 40)
	data[0] = 0x45
	address := netip.MustParseAddr(source).As4()
	copy(data[12:], address[:])
	return data
}

func TestAPacketGetsTheDelayOfItsSourcesRange(t *testing.T) {
	r := newRelay(nil)
	if err := r.load(write(t, "10.244.1.0/24 20ms\n10.244.2.0/24 1ms\n")); err != nil {
		t.Fatal(err)
	}
	for source, want := range map[string]time.Duration{
		"10.244.1.7": 20 * time.Millisecond,
		"10.244.2.9": time.Millisecond,
		"10.96.0.10": 0,
	} {
		if got := time.Duration(r.laneOf(from(source)).delay.Load()); got != want {
			t.Errorf("%s: %v, want %v", source, got, want)
		}
	}
}

func TestARangeThatIsNoLongerNamedHasNoDelay(t *testing.T) {
	r := newRelay(nil)
	for _, text := range []string{"10.244.1.0/24 20ms\n", "10.244.2.0/24 1ms\n"} {
		if err := r.load(write(t, text)); err != nil {
			t.Fatal(err)
		}
	}
	if got := r.laneOf(from("10.244.1.7")).delay.Load(); got != 0 {
		t.Errorf("still %v", time.Duration(got))
	}
}

func TestAFileThatCannotBeReadChangesNothing(t *testing.T) {
	r := newRelay(nil)
	if err := r.load(write(t, "10.244.1.0/24 20ms\n")); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"10.244.1.0/24\n", "nonsense 1ms\n", "10.244.1.0/24 fast\n"} {
		if r.load(write(t, text)) == nil {
			t.Errorf("%q was taken", text)
		}
	}
	if got := time.Duration(r.laneOf(from("10.244.1.7")).delay.Load()); got != 20*time.Millisecond {
		t.Errorf("now %v", got)
	}
}

func TestPacketsOfOneRangeKeepTheirOrderAndTheirDelay(t *testing.T) {
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	r := newRelay(out)
	if err := r.load(write(t, "10.244.1.0/24 30ms\n")); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	for number := byte(0); number < 5; number++ {
		data := from("10.244.1.7")
		data[39] = number
		r.laneOf(data).hold(data)
	}
	for want := byte(0); want < 5; want++ {
		data := make([]byte, 40)
		if _, err := in.Read(data); err != nil {
			t.Fatal(err)
		}
		if data[39] != want {
			t.Fatalf("packet %d came as number %d", data[39], want)
		}
	}
	if took := time.Since(begun); took < 30*time.Millisecond || took > time.Second {
		t.Errorf("took %v", took)
	}
}

func TestAFullLaneDropsAndCounts(t *testing.T) {
	l := &lane{packets: make(chan packet, 1)}
	l.hold([]byte{1})
	l.hold([]byte{2})
	if l.dropped.Load() != 1 {
		t.Errorf("%d dropped", l.dropped.Load())
	}
}

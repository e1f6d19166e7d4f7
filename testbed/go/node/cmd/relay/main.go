// Command relay adds delay to the packets that other nodes' pods send to the pods of this node.
//
// It serves kernels without netem. Packets that arrive on eth0 from the pod network for this
// node's own pod range are routed to a TUN device by a policy rule; relay holds each for the
// delay of its source's range and writes it back to the device, from where the main table
// delivers it. Order within a range is kept. The second pass is not tracked by conntrack: the
// first one already undid the address translation of service replies, so tracking the packet
// again would find no connection and call it invalid.
//
//	relay -pods 10.244.0.0/16 -own 10.244.1.0/24 -delays FILE
//
// FILE holds one "RANGE DELAY" a line, e.g. "10.244.2.0/24 20ms"; SIGHUP reads it again.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"log"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

const (
	device = "delay0"
	table  = "77"
	mtu    = 1500
	queued = 8192 // packets held per range: 1 s at 100 Mbit/s
)

type packet struct {
	due  time.Time
	data []byte
}

// lane holds the packets of one source range in order of arrival.
type lane struct {
	source  netip.Prefix
	delay   atomic.Int64 // nanoseconds
	packets chan packet
	dropped atomic.Int64
}

func (l *lane) deliver(out *os.File) {
	for p := range l.packets {
		time.Sleep(time.Until(p.due))
		if _, err := out.Write(p.data); err != nil {
			l.dropped.Add(1)
		}
	}
}

func (l *lane) hold(data []byte) {
	due := time.Now().Add(time.Duration(l.delay.Load()))
	select {
	case l.packets <- packet{due, data}:
	default:
		if l.dropped.Add(1)%1000 == 1 {
			log.Printf("%v: more than %d packets held, %d dropped so far", l.source, queued, l.dropped.Load())
		}
	}
}

type relay struct {
	out   *os.File
	lanes map[netip.Prefix]*lane
	table atomic.Pointer[[]*lane]
	rest  *lane // sources that the file does not name: no delay
}

func newRelay(out *os.File) *relay {
	r := &relay{out: out, lanes: map[netip.Prefix]*lane{}}
	r.rest = r.open(netip.MustParsePrefix("0.0.0.0/0"))
	r.table.Store(&[]*lane{})
	return r
}

func (r *relay) open(source netip.Prefix) *lane {
	if l, ok := r.lanes[source]; ok {
		return l
	}
	l := &lane{source: source, packets: make(chan packet, queued)}
	r.lanes[source] = l
	go l.deliver(r.out)
	return l
}

// load reads the delays; a range that is no longer named has none.
func (r *relay) load(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	delays := map[netip.Prefix]time.Duration{}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var source, delay string
		if n, _ := fmt.Sscan(lines.Text(), &source, &delay); n != 2 {
			return fmt.Errorf("%s: want \"RANGE DELAY\", got %q", path, lines.Text())
		}
		prefix, err := netip.ParsePrefix(source)
		if err != nil {
			return err
		}
		if delays[prefix], err = time.ParseDuration(delay); err != nil {
			return err
		}
	}
	r.apply(delays)
	return nil
}

func (r *relay) apply(delays map[netip.Prefix]time.Duration) {
	for prefix := range delays {
		r.open(prefix)
	}
	lanes := []*lane{}
	for prefix, l := range r.lanes {
		l.delay.Store(int64(delays[prefix]))
		if l != r.rest {
			lanes = append(lanes, l)
		}
	}
	r.table.Store(&lanes)
	log.Print("delays: ", delays)
}

func (r *relay) laneOf(data []byte) *lane {
	if len(data) < 20 || data[0]>>4 != 4 {
		return r.rest
	}
	source := netip.AddrFrom4([4]byte(data[12:16]))
	for _, l := range *r.table.Load() {
		if l.source.Contains(source) {
			return l
		}
	}
	return r.rest
}

func (r *relay) run(in *os.File) error {
	buffer := make([]byte, 65536)
	for {
		n, err := in.Read(buffer)
		if err != nil {
			return err
		}
		r.laneOf(buffer[:n]).hold(append([]byte(nil), buffer[:n]...))
	}
}

func openTUN() (*os.File, error) {
	fd, err := syscall.Open("/dev/net/tun", syscall.O_RDWR|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("/dev/net/tun: %w", err)
	}
	var request struct {
		name  [syscall.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}
	copy(request.name[:], device)
	request.flags = syscall.IFF_TUN | syscall.IFF_NO_PI
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.TUNSETIFF, uintptr(unsafe.Pointer(&request)))
	if errno != 0 {
		return nil, fmt.Errorf("create %s: %w", device, errno)
	}
	return os.NewFile(uintptr(fd), device), nil
}

func sh(line string, stdin string) error {
	fields := strings.Fields(line)
	command := exec.Command(fields[0], fields[1:]...)
	command.Stdin = strings.NewReader(stdin)
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", line, err, out)
	}
	return nil
}

// route sends what arrives from other nodes' pods through the device.
func route(pods, own string) error {
	// The rule makes the way back of every packet to or from another node's pod lead over the device,
	// so the check of the reverse path fails at every interface, those of later pods included.
	files, _ := filepath.Glob("/proc/sys/net/ipv4/conf/*/rp_filter")
	for _, file := range files {
		if err := os.WriteFile(file, []byte("0"), 0); err != nil {
			return err
		}
	}
	rules := "table ip relay\ndelete table ip relay\ntable ip relay { chain pre { " +
		"type filter hook prerouting priority raw; policy accept; iifname \"" + device + "\" notrack; }; }\n"
	if err := sh("nft -f -", rules); err != nil {
		return err
	}
	for _, line := range []string{
		fmt.Sprintf("ip link set %s up mtu %d txqueuelen 2000", device, mtu),
		fmt.Sprintf("ip route replace default dev %s table %s", device, table),
		fmt.Sprintf("ip rule add pref 100 iif eth0 from %s to %s lookup %s", pods, own, table),
	} {
		if err := sh(line, ""); err != nil {
			return err
		}
	}
	return nil
}

func unroute() {
	for sh("ip rule del pref 100", "") == nil { // one left over from a killed relay goes too
	}
	_ = sh("nft delete table ip relay", "")
}

func main() {
	pods := flag.String("pods", "10.244.0.0/16", "range of all pods")
	own := flag.String("own", "", "range of this node's pods")
	delays := flag.String("delays", "", "file of delays by source range")
	flag.Parse()
	log.SetFlags(log.Ltime | log.Lmicroseconds)
	unroute()
	tun, err := openTUN()
	if err != nil {
		log.Fatal(err)
	}
	r := newRelay(tun)
	if err = r.load(*delays); err != nil {
		log.Fatal(err)
	}
	if err = route(*pods, *own); err != nil {
		unroute()
		log.Fatal(err)
	}
	go func() { log.Fatal(r.run(tun)) }()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT)
	for s := range signals {
		if s != syscall.SIGHUP {
			break
		}
		if err := r.load(*delays); err != nil {
			log.Print("delays unchanged: ", err)
		}
	}
	unroute()
}

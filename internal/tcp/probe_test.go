//go:build linux

package tcp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.uber.org/zap/zaptest"
	"golang.org/x/sys/unix"

	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel"
	"github.com/ebpfreceiver/ebpfreceiver/internal/kernel/kerneltest"
	"github.com/ebpfreceiver/ebpfreceiver/internal/ring"
	"github.com/ebpfreceiver/ebpfreceiver/internal/tcp/puppet"
	"github.com/ebpfreceiver/ebpfreceiver/internal/workload"
)

// observer is a running probe and what it has handed over.
type observer struct {
	*Probe
	t       *testing.T
	mutex   sync.Mutex
	metrics []pmetric.Metrics
	records []map[string]any
}

func testConfig() Config {
	return Config{
		SnapshotInterval: time.Hour, // tests take their snapshots at the end, or say otherwise
		MetricsInterval:  time.Hour,
		Delta:            true,
		MaxSeries:        10000,
		FlowLogs:         true,
		Ring:             ring.Config{Bytes: 4 << 20, WakeupBytes: 1 << 20, PollInterval: 20 * time.Millisecond},
		Scope:            testScope,
	}
}

func observe(t *testing.T, change func(*Config)) *observer {
	t.Helper()
	o := prepare(t, change)
	require.NoError(t, o.Start())
	t.Cleanup(o.finishObserving)
	return o
}

// prepare makes an observer that has not been started.
func prepare(t *testing.T, change func(*Config)) *observer {
	t.Helper()
	kerneltest.RequireRoot(t)
	logger := zaptest.NewLogger(t)
	kern, err := kernel.Open(kernel.Options{}, logger)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, kern.Close()) })
	workloads, err := workload.NewTable(workload.Config{}, kern, logger)
	require.NoError(t, err)
	require.NoError(t, workloads.Start())
	t.Cleanup(func() { assert.NoError(t, workloads.Close()) })

	config := testConfig()
	if change != nil {
		change(&config)
	}
	o := &observer{t: t}
	// The puppets alone: whatever else this host does is none of a test's business.
	executable, err := os.Executable()
	require.NoError(t, err)
	selector, err := workload.Selection{Include: []workload.Rule{{Executable: executable}}}.Compile()
	require.NoError(t, err)
	o.Probe = New(config, kern, workloads, selector, Sinks{Metrics: o.takeMetrics, Logs: o.takeLogs}, logger)
	return o
}

func (o *observer) takeMetrics(_ context.Context, metrics pmetric.Metrics) error {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	o.metrics = append(o.metrics, metrics)
	return nil
}

func (o *observer) takeLogs(_ context.Context, logs plog.Logs) error {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	for _, resource := range logs.ResourceLogs().All() {
		for _, scope := range resource.ScopeLogs().All() {
			for _, record := range scope.LogRecords().All() {
				assert.Equal(o.t, EventFlow, record.EventName())
				assert.NotEmpty(o.t, record.Body().Str())
				o.records = append(o.records, record.Attributes().AsRaw())
			}
		}
	}
	return nil
}

func (o *observer) lost(reason string) uint64 {
	for _, loss := range o.Stats().Losses {
		if loss.Reason == reason {
			return loss.Count
		}
	}
	o.t.Fatalf("there is no loss reason %q", reason)
	return 0
}

func (o *observer) finishObserving() { assert.NoError(o.t, o.Shutdown(context.Background())) }

// find gives the records that have all the attributes.
func (o *observer) find(want map[string]any) []map[string]any {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	var found []map[string]any
	for _, record := range o.records {
		matches := true
		for key, value := range want {
			if record[key] != value {
				matches = false
				break
			}
		}
		if matches {
			found = append(found, record)
		}
	}
	return found
}

// wait gives the records that have all the attributes once there are so many.
func (o *observer) wait(count int, want map[string]any) []map[string]any {
	o.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if found := o.find(want); len(found) >= count {
			return found
		}
	}
	o.t.Fatalf("%d records with %v, there are %d; the probe says %+v; the processes say %+v",
		count, want, len(o.find(want)), o.Stats(), o.workloads.Stats())
	return nil
}

func (o *observer) sums() map[string]int64 {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	totals := map[string]int64{}
	for _, metrics := range o.metrics {
		for name, value := range sums(metrics) {
			totals[name] += value
		}
	}
	return totals
}

func newPuppet(t *testing.T, wrapper ...string) *puppet.Puppet {
	t.Helper()
	p, err := puppet.Start(wrapper...)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, p.Stop()) })
	return p
}

func do(t *testing.T, p *puppet.Puppet, command puppet.Command) puppet.Answer {
	t.Helper()
	answer, err := p.Do(command)
	require.NoError(t, err)
	return answer
}

// pair is a connection between two puppets.
type pair struct {
	client, server               *puppet.Puppet
	clientID, serverID, listener int
	clientPort, serverPort       int
	network, dialHost            string
}

func connect(t *testing.T, network, listenHost, dialHost string) *pair {
	t.Helper()
	p := &pair{client: newPuppet(t), server: newPuppet(t), network: network, dialHost: dialHost}
	listening := do(t, p.server, puppet.Command{Op: "listen", Network: network, Address: net.JoinHostPort(listenHost, "0")})
	p.listener, p.serverPort = listening.ID, listening.Port
	p.dial(t)
	return p
}

func (p *pair) dial(t *testing.T) {
	t.Helper()
	dialled := do(t, p.client, puppet.Command{
		Op: "dial", Network: p.network, Address: net.JoinHostPort(p.dialHost, strconv.Itoa(p.serverPort)), Timeout: 5 * time.Second,
	})
	p.clientID, p.clientPort = dialled.ID, dialled.Port
	p.serverID = do(t, p.server, puppet.Command{Op: "accept", ID: p.listener}).ID
}

func (p *pair) send(t *testing.T, fromClient bool, bytes int) {
	t.Helper()
	writer, writerID, reader, readerID := p.client, p.clientID, p.server, p.serverID
	if !fromClient {
		writer, writerID, reader, readerID = reader, readerID, writer, writerID
	}
	read := make(chan error, 1)
	go func() {
		_, err := reader.Do(puppet.Command{Op: "read", ID: readerID, Bytes: bytes})
		read <- err
	}()
	do(t, writer, puppet.Command{Op: "write", ID: writerID, Bytes: bytes})
	require.NoError(t, <-read)
}

func (p *pair) close(t *testing.T) {
	t.Helper()
	do(t, p.client, puppet.Command{Op: "close", ID: p.clientID})
	do(t, p.server, puppet.Command{Op: "drain", ID: p.serverID})
	do(t, p.server, puppet.Command{Op: "close", ID: p.serverID})
}

func (p *pair) ends(o *observer) (client, server map[string]any) {
	o.t.Helper()
	client = o.wait(1, map[string]any{attrRole: "client", attrFlowReport: "end", attrLocalPort: int64(p.clientPort), attrServerPort: int64(p.serverPort)})[0]
	server = o.wait(1, map[string]any{attrRole: "server", attrFlowReport: "end", attrPeerPort: int64(p.clientPort), attrServerPort: int64(p.serverPort)})[0]
	return client, server
}

func TestBothEndsToTheByte(t *testing.T) {
	for _, test := range []struct {
		name, network, listen, dial, networkType string
		client, server                           string // addresses as reported
	}{
		{"IPv4", "tcp4", "127.0.0.1", "127.0.0.1", "ipv4", "127.0.0.1", "127.0.0.1"},
		{"IPv6", "tcp6", "::1", "::1", "ipv6", "::1", "::1"},
		{"IPv4 client of an IPv6 listener", "tcp", "::", "127.0.0.1", "ipv4", "127.0.0.1", "127.0.0.1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := observe(t, nil)
			p := connect(t, test.network, test.listen, test.dial)
			const up, down = 123_457, 3_000_001
			p.send(t, true, up)
			p.send(t, false, down)
			p.close(t)
			client, server := p.ends(o)

			assert.EqualValues(t, up, client[attrSentBytes])
			assert.EqualValues(t, down, client[attrReceivedBytes])
			assert.EqualValues(t, up, server[attrReceivedBytes])
			assert.EqualValues(t, down, server[attrSentBytes])
			for _, end := range []map[string]any{client, server} {
				assert.Equal(t, "tcp", end[attrTransport])
				assert.Equal(t, test.networkType, end[attrNetworkType])
				assert.Equal(t, test.client, end[attrClientAddress])
				assert.Equal(t, test.server, end[attrServerAddress])
				assert.EqualValues(t, p.clientPort, end[attrClientPort])
				assert.EqualValues(t, p.serverPort, end[attrServerPort])
				assert.Greater(t, end[attrSRTT], 0.0)
				assert.Greater(t, end[attrMinRTT], 0.0)
				assert.Greater(t, end[attrFlowDuration], 0.0)
				assert.NotContains(t, end, attrErrorType)
				assert.NotContains(t, end, attrPreexisting)
				assert.NotContains(t, end, attrOwnerInferred)
			}
			assert.Greater(t, client[attrHandshakeDuration], 0.0)
			assert.Less(t, client[attrHandshakeDuration], 0.1)
			assert.NotContains(t, server, attrHandshakeDuration)
			assert.EqualValues(t, p.client.PID, client[attrPID])
			assert.EqualValues(t, p.server.PID, server[attrPID])
			assert.Equal(t, client[attrFlowID], server[attrFlowID], "the two ends are one connection")
			executable, err := os.Executable()
			require.NoError(t, err)
			assert.Equal(t, executable, client[attrExecutable])
		})
	}
}

func TestOptionsOfTheSocket(t *testing.T) {
	o := observe(t, nil)
	p := connect(t, "tcp4", "127.0.0.1", "127.0.0.1")
	do(t, p.client, puppet.Command{Op: "options", ID: p.clientID})
	p.send(t, true, 10)
	p.close(t)
	client, _ := p.ends(o)
	assert.EqualValues(t, puppet.Mark, client[attrMark])
	assert.EqualValues(t, puppet.DSCP, client[attrDSCP])
	assert.EqualValues(t, puppet.CongestionControl, client[attrCongestionControl])
	assert.InDelta(t, puppet.UserTimeoutMs/1e3, client[attrUserTimeout], 1e-9)
	assert.Equal(t, true, client[attrNoDelay], "Go sets TCP_NODELAY")
	assert.Equal(t, true, client[attrKeepAlive], "Go sets SO_KEEPALIVE")
	assert.NotZero(t, client[attrReceiveBuffer])
	assert.NotZero(t, client[attrSendBuffer])
	assert.NotZero(t, client[attrMSS])
	assert.NotZero(t, client[attrCongestionWindow])
}

func TestDeltasAcrossSnapshotsAddUpToTheByte(t *testing.T) {
	o := observe(t, func(config *Config) {
		config.SnapshotInterval = 10 * time.Millisecond // as many races between snapshot and end as can be had
		config.MetricsInterval = 15 * time.Millisecond
	})
	server := newPuppet(t)
	const count, up, down = 2000, 700, 1300
	listening := do(t, server, puppet.Command{Op: "listen", Network: "tcp4", Address: "127.0.0.1:0"})
	do(t, server, puppet.Command{Op: "serve", ID: listening.ID, Bytes: down})
	var group sync.WaitGroup
	for range 2 {
		client := newPuppet(t)
		group.Go(func() {
			answer, err := client.Do(puppet.Command{Op: "storm", Network: "tcp4", Address: fmt.Sprintf("127.0.0.1:%d", listening.Port), Count: count, Bytes: up})
			assert.NoError(t, err)
			assert.Equal(t, count, answer.Count)
			assert.Equal(t, count*down, answer.Bytes)
		})
	}
	// One that stands all the while and moves bytes now and then.
	long := connect(t, "tcp4", "127.0.0.1", "127.0.0.1")
	sent := 0
	for i := range 20 {
		long.send(t, true, 1000+i)
		sent += 1000 + i
		time.Sleep(5 * time.Millisecond)
	}
	long.close(t)
	group.Wait()
	client, _ := long.ends(o)
	assert.EqualValues(t, sent, client[attrSentBytes])
	o.wait(2*count, map[string]any{attrRole: "server", attrFlowReport: "end", attrServerPort: int64(listening.Port)})
	o.finishObserving()

	for _, role := range []string{"client", "server"} {
		var sentDelta, receivedDelta int64
		ends := 0
		for _, record := range o.find(map[string]any{attrRole: role, attrServerPort: int64(listening.Port)}) {
			sentDelta += record[attrSentBytesDelta].(int64)
			receivedDelta += record[attrReceivedBytesDelta].(int64)
			if record[attrFlowReport] == "end" {
				ends++
			}
		}
		assert.Equal(t, 2*count, ends, role)
		wantSent, wantReceived := int64(2*count*up), int64(2*count*down)
		if role == "server" {
			wantSent, wantReceived = wantReceived, wantSent
		}
		assert.Equal(t, wantSent, sentDelta, role)
		assert.Equal(t, wantReceived, receivedDelta, role)
	}
	var longDelta int64
	for _, record := range o.find(map[string]any{
		attrRole: "client", attrLocalPort: int64(long.clientPort), attrServerPort: int64(long.serverPort),
	}) {
		longDelta += record[attrSentBytesDelta].(int64)
	}
	assert.EqualValues(t, sent, longDelta)
	assert.NotEmpty(t, o.find(map[string]any{attrFlowReport: "snapshot", attrLocalPort: int64(long.clientPort)}))

	opened, closed := o.sums()[MetricConnectionsOpened], o.sums()[MetricConnectionsClosed]
	assert.Equal(t, opened, closed, "each connection opens once and closes once")
	assert.GreaterOrEqual(t, opened, int64(4*count+2))
	for _, loss := range o.Stats().Losses {
		assert.Zero(t, loss.Count, loss.Reason)
	}
}

// The kernel counts a FIN among the received bytes a moment before it says that there was one: no snapshot between the two
// may report a byte more than there is.
func TestSnapshotsCountNoFIN(t *testing.T) {
	o := observe(t, nil)
	server, client := newPuppet(t), newPuppet(t)
	const count, up, down = 6000, 700, 1300
	listening := do(t, server, puppet.Command{Op: "listen", Network: "tcp4", Address: "127.0.0.1:0"})
	do(t, server, puppet.Command{Op: "serve", ID: listening.ID, Bytes: down})
	address := fmt.Sprintf("127.0.0.1:%d", listening.Port)
	stormed, walking := make(chan struct{}), make(chan error)
	go func() {
		var err error
		for more := true; more && err == nil; { // one snapshot after the other
			select {
			case <-stormed:
				more = false
			default:
				err = walk(o.snapshot)
			}
		}
		walking <- err
	}()
	do(t, client, puppet.Command{Op: "storm", Network: "tcp4", Address: address, Count: count, Bytes: up})
	close(stormed)
	require.NoError(t, <-walking)
	o.finishObserving()

	snapshots := 0
	for role, most := range map[string]int64{"client": down, "server": up} {
		reported := map[any]int64{}
		for _, record := range o.find(map[string]any{attrRole: role, attrServerPort: int64(listening.Port)}) {
			if id := record[attrFlowID]; id != nil { // none: it was still being made
				reported[id] += record[attrReceivedBytesDelta].(int64)
			}
			if record[attrFlowReport] == "snapshot" {
				snapshots++
			}
			assert.LessOrEqual(t, record[attrReceivedBytes], most, "%s: %v", role, record[attrFlowReport])
		}
		for id, bytes := range reported {
			assert.Equal(t, most, bytes, "%s: all reports of connection %v", role, id)
		}
		assert.Len(t, reported, count, role)
	}
	t.Logf("%d snapshots of connections", snapshots)
}

// walk lets the kernel go through all connections once, as far as there is room for what it tells of them.
func walk(over *link.Iter) error {
	through, err := over.Open()
	if err != nil {
		return err
	}
	defer through.Close()
	if _, err = io.Copy(io.Discard, through); errors.Is(err, unix.EAGAIN) {
		return nil
	}
	return err
}

func TestFailedConnects(t *testing.T) {
	o := observe(t, nil)
	client := newPuppet(t)
	// A port that was free a moment ago.
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	port := listener.Addr().(*net.TCPAddr).Port
	require.NoError(t, listener.Close())
	_, err = client.Do(puppet.Command{Op: "dial", Network: "tcp4", Address: fmt.Sprintf("127.0.0.1:%d", port), Timeout: time.Second})
	require.ErrorContains(t, err, "refused")

	refused := o.wait(1, map[string]any{attrRole: "client", attrServerPort: int64(port)})[0]
	assert.Equal(t, "ECONNREFUSED", refused[attrErrorType])
	assert.Equal(t, "syn_sent", refused[attrTCPState])
	assert.EqualValues(t, client.PID, refused[attrPID])
	assert.EqualValues(t, 0, refused[attrSentBytes])
	assert.NotContains(t, refused, attrFlowDuration)
	assert.NotContains(t, refused, attrHandshakeDuration)
	assert.NotContains(t, refused, attrFlowID)
	o.finishObserving()
	assert.EqualValues(t, 1, o.sums()[MetricConnectionsFailed+"/ECONNREFUSED"])
}

func TestConnectsThatTheApplicationGivesUp(t *testing.T) {
	netns := newNamespace(t)
	o := observe(t, nil)
	client := newPuppet(t, netns.enter()...)
	// Nobody answers for a neighbour on the link: the SYN goes nowhere.
	_, err := client.Do(puppet.Command{Op: "dial", Network: "tcp4", Address: "10.255.0.9:81", Timeout: 300 * time.Millisecond})
	require.ErrorContains(t, err, "timeout")
	aborted := o.wait(1, map[string]any{attrRole: "client", attrServerPort: int64(81), attrServerAddress: "10.255.0.9"})[0]
	assert.Equal(t, errorAborted, aborted[attrErrorType])
	assert.EqualValues(t, client.PID, aborted[attrPID])
}

func TestResets(t *testing.T) {
	o := observe(t, nil)
	p := connect(t, "tcp4", "127.0.0.1", "127.0.0.1")
	p.send(t, true, 100)
	do(t, p.client, puppet.Command{Op: "reset", ID: p.clientID}) // close with SO_LINGER 0: the reset follows the end
	_, err := p.server.Do(puppet.Command{Op: "drain", ID: p.serverID})
	require.ErrorContains(t, err, "reset")
	client, server := p.ends(o)
	assert.EqualValues(t, 1, client[attrResetsSent])
	assert.EqualValues(t, 0, client[attrResetsReceived])
	assert.EqualValues(t, 0, server[attrResetsSent])
	assert.EqualValues(t, 1, server[attrResetsReceived])
	assert.Equal(t, "ECONNRESET", server[attrErrorType])
	assert.NotContains(t, client, attrErrorType)
	do(t, p.server, puppet.Command{Op: "close", ID: p.serverID})

	// Closing with unread data sends one, too.
	p.dial(t)
	do(t, p.client, puppet.Command{Op: "write", ID: p.clientID, Bytes: 50})
	require.Eventually(t, func() bool { return unread(t, p.serverPort, p.clientPort) == 50 }, 5*time.Second, 5*time.Millisecond)
	do(t, p.server, puppet.Command{Op: "close", ID: p.serverID})
	client, server = p.ends(o)
	assert.EqualValues(t, 1, server[attrResetsSent])
	assert.EqualValues(t, 1, client[attrResetsReceived])
	o.finishObserving()
	assert.EqualValues(t, 2, o.sums()[MetricResets+"/transmit"])
	assert.EqualValues(t, 2, o.sums()[MetricResets+"/receive"])
}

// unread asks ss how many bytes wait in a socket's receive queue.
func unread(t *testing.T, localPort, peerPort int) int {
	t.Helper()
	output, err := exec.Command("ss", "-Htn", "sport", "=", strconv.Itoa(localPort), "and", "dport", "=", strconv.Itoa(peerPort)).Output()
	require.NoError(t, err)
	fields := strings.Fields(string(output))
	if len(fields) < 2 {
		return -1
	}
	waiting, err := strconv.Atoi(fields[1])
	require.NoError(t, err)
	return waiting
}

func TestWhatStoodBeforeTheStart(t *testing.T) {
	kerneltest.RequireRoot(t)
	p := connect(t, "tcp4", "127.0.0.1", "127.0.0.1")
	p.send(t, true, 5000)
	p.send(t, false, 7000)
	o := observe(t, nil)
	p.send(t, true, 11)
	p.send(t, false, 13)
	p.close(t)
	client, server := p.ends(o)

	for _, end := range []map[string]any{client, server} {
		assert.Equal(t, true, end[attrPreexisting])
		assert.NotContains(t, end, attrFlowDuration, "its beginning was not seen")
		assert.NotContains(t, end, attrFlowStart)
		assert.NotContains(t, end, attrHandshakeDuration)
	}
	news := func(end map[string]any, attribute string) (total int64) {
		for _, record := range o.find(map[string]any{attrLocalPort: end[attrLocalPort], attrPeerPort: end[attrPeerPort]}) {
			total += record[attribute].(int64)
		}
		return total
	}
	assert.EqualValues(t, 11, news(client, attrSentBytesDelta), "only what moved since is news")
	assert.EqualValues(t, 13, news(client, attrReceivedBytesDelta))
	assert.EqualValues(t, 13, news(server, attrSentBytesDelta))
	assert.EqualValues(t, 11, news(server, attrReceivedBytesDelta))
	assert.EqualValues(t, 5011, client[attrSentBytes], "the total is the connection's own")
	assert.EqualValues(t, p.client.PID, client[attrPID])
	assert.EqualValues(t, p.server.PID, server[attrPID])
	assert.Equal(t, client[attrFlowID], server[attrFlowID])

	// A listener that stood before hands its owner on.
	p.dial(t)
	p.close(t)
	_, server = p.ends(o)
	assert.EqualValues(t, p.server.PID, server[attrPID])
	assert.NotContains(t, server, attrPreexisting)
	o.finishObserving()
	for _, loss := range o.Stats().Losses {
		assert.Zero(t, loss.Count, loss.Reason)
	}
}

func TestAgainstSS(t *testing.T) {
	o := observe(t, func(config *Config) { config.SnapshotInterval = 50 * time.Millisecond })
	p := connect(t, "tcp4", "127.0.0.1", "127.0.0.1")
	p.send(t, true, 500_000)
	p.send(t, false, 77)
	time.Sleep(300 * time.Millisecond) // delayed acknowledgements
	output, err := exec.Command("ss", "-Htin", "sport", "=", strconv.Itoa(p.clientPort)).Output()
	require.NoError(t, err)
	said := ssFields(string(output))
	o.mutex.Lock()
	o.records = nil
	o.mutex.Unlock()
	got := o.wait(1, map[string]any{attrRole: "client", attrFlowReport: "snapshot", attrLocalPort: int64(p.clientPort)})[0]

	assert.Equal(t, said["bytes_sent"], fmt.Sprint(got[attrSentBytes]))
	assert.Equal(t, said["bytes_received"], fmt.Sprint(got[attrReceivedBytes]))
	assert.Equal(t, said["segs_out"], fmt.Sprint(got[attrSentSegments]))
	assert.Equal(t, said["segs_in"], fmt.Sprint(got[attrReceivedSegments]))
	assert.Equal(t, said["cwnd"], fmt.Sprint(got[attrCongestionWindow]))
	assert.Equal(t, said["mss"], fmt.Sprint(got[attrMSS]))
	assert.Contains(t, string(output), " "+got[attrCongestionControl].(string)+" ")
	roundTrip, err := strconv.ParseFloat(strings.Split(said["rtt"], "/")[0], 64)
	require.NoError(t, err)
	assert.InDelta(t, roundTrip, got[attrSRTT].(float64)*1e3, 0.0011)
	minimum, err := strconv.ParseFloat(said["minrtt"], 64)
	require.NoError(t, err)
	assert.InDelta(t, minimum, got[attrMinRTT].(float64)*1e3, 0.0011)
	p.close(t)
}

// ssFields reads the name:value words of ss -i.
func ssFields(output string) map[string]string {
	fields := map[string]string{}
	for _, word := range strings.Fields(output) {
		if name, value, ok := strings.Cut(word, ":"); ok {
			fields[name] = value
		}
	}
	return fields
}

func TestLossySegmentsAreCountedOnce(t *testing.T) {
	for _, test := range []struct {
		name   string
		attach ebpf.AttachType
	}{
		{"on the way", ebpf.AttachCGroupInetIngress},
		{"by this host itself", ebpf.AttachCGroupInetEgress},
	} {
		t.Run(test.name, func(t *testing.T) {
			kerneltest.RequireRoot(t)
			enter := loseSegments(t, test.attach, 7, 1000)
			o := observe(t, nil)
			client, server := newPuppet(t, enter...), newPuppet(t, enter...)
			listening := do(t, server, puppet.Command{Op: "listen", Network: "tcp4", Address: "127.0.0.1:0"})
			do(t, server, puppet.Command{Op: "serve", ID: listening.ID, Bytes: 200_000})
			answer := do(t, client, puppet.Command{
				Op: "storm", Network: "tcp4", Address: fmt.Sprintf("127.0.0.1:%d", listening.Port), Count: 5, Bytes: 300_000,
			})
			require.Equal(t, 5*200_000, answer.Bytes)
			ends := o.wait(5, map[string]any{attrRole: "server", attrServerPort: int64(listening.Port), attrFlowReport: "end"})
			retransmits := int64(0)
			for _, end := range ends {
				retransmits += end[attrRetransmits].(int64)
				assert.EqualValues(t, 200_000, end[attrSentBytes])
				assert.EqualValues(t, 300_000, end[attrReceivedBytes])
			}
			if test.attach == ebpf.AttachCGroupInetIngress {
				assert.NotZero(t, retransmits)
			}
		})
	}
}

// loseSegments drops every so manieth packet of at least so many bytes, of the processes that the returned words wrap.
func loseSegments(t *testing.T, attach ebpf.AttachType, every, leastBytes int32) []string {
	t.Helper()
	mount, err := kernel.Cgroup2Mount()
	require.NoError(t, err)
	path, err := os.MkdirTemp(mount, "ebpfreceiver-test-")
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, os.Remove(path)) })
	seen, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, seen.Close()) })
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.CGroupSKB, AttachType: attach, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R6, asm.R1, 0, asm.Word), // __sk_buff.len
			asm.JLT.Imm(asm.R6, leastBytes, "pass"),
			asm.StoreImm(asm.RFP, -4, 0, asm.Word),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, -4),
			asm.LoadMapPtr(asm.R1, seen.FD()),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, "pass"),
			asm.Mov.Imm(asm.R1, 1),
			asm.StoreXAdd(asm.R0, asm.R1, asm.DWord),
			asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord),
			asm.Mod.Imm(asm.R1, every),
			asm.JNE.Imm(asm.R1, 0, "pass"),
			asm.Mov.Imm(asm.R0, 0),
			asm.Return(),
			asm.Mov.Imm(asm.R0, 1).WithSymbol("pass"),
			asm.Return(),
		},
	})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, program.Close()) })
	attached, err := link.AttachCgroup(link.CgroupOptions{Path: path, Attach: attach, Program: program})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, attached.Close()) })
	return []string{"sh", "-c", `echo $$ > "$0" && exec "$@"`, filepath.Join(path, "cgroup.procs")}
}

func TestRetransmitsOfTheHandshake(t *testing.T) {
	kerneltest.RequireRoot(t)
	o := observe(t, nil)
	server := newPuppet(t)
	listening := do(t, server, puppet.Command{Op: "listen", Network: "tcp4", Address: "127.0.0.1:0"})
	client := newPuppet(t, loseSegments(t, ebpf.AttachCGroupInetIngress, 1, 0)...) // no SYN-ACK ever arrives
	_, err := client.Do(puppet.Command{
		Op: "dial", Network: "tcp4", Address: fmt.Sprintf("127.0.0.1:%d", listening.Port), Timeout: 1500 * time.Millisecond,
	})
	require.ErrorContains(t, err, "timeout")
	failed := o.wait(1, map[string]any{attrRole: "client", attrServerPort: int64(listening.Port)})[0]
	assert.Equal(t, errorAborted, failed[attrErrorType])
	assert.EqualValues(t, 1, failed[attrSYNRetransmits], "after one second")
	assert.EqualValues(t, 0, failed[attrRetransmits])
	o.finishObserving()
	assert.EqualValues(t, 1, o.sums()[MetricRetransmits+"/syn"])
	assert.NotZero(t, o.sums()[MetricRetransmits+"/syn_ack"])
}

func TestListeners(t *testing.T) {
	o := observe(t, func(config *Config) {
		config.SnapshotInterval = 50 * time.Millisecond
		config.MetricsInterval = 60 * time.Millisecond
	})
	client, server := newPuppet(t), newPuppet(t)
	listening := do(t, server, puppet.Command{Op: "listen", Network: "tcp4", Address: "127.0.0.1:0"})
	for range 3 { // nobody accepts them
		do(t, client, puppet.Command{
			Op: "dial", Network: "tcp4", Address: fmt.Sprintf("127.0.0.1:%d", listening.Port), Timeout: time.Second,
		})
	}
	limit, err := os.ReadFile("/proc/sys/net/core/somaxconn") // what Go listens with
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		return fmt.Sprint(o.gaugeAt(MetricListenerBacklog, listening.Port)) == "3" &&
			fmt.Sprint(o.gaugeAt(MetricListenerBacklogLimit, listening.Port)) == strings.TrimSpace(string(limit)) &&
			o.gaugeAt(MetricConnectionsOpen, listening.Port) == 6
	}, 5*time.Second, 10*time.Millisecond, "three wait to be accepted; six ends are open")
}

// gaugeAt sums the points of a service in the newest metrics that have any.
func (o *observer) gaugeAt(name string, port int) int64 {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	for i := len(o.metrics) - 1; i >= 0; i-- {
		total, found := int64(0), false
		eachMetric(o.metrics[i], func(metric pmetric.Metric) {
			if metric.Name() != name {
				return
			}
			for _, point := range metric.Gauge().DataPoints().All() {
				if value, ok := point.Attributes().Get(attrServerPort); ok && value.Int() == int64(port) {
					total, found = total+point.IntValue(), true
				}
			}
		})
		if found {
			return total
		}
	}
	return -1
}

// storm makes count connections between two puppets and returns the server's port.
func storm(t *testing.T, count int) int {
	t.Helper()
	client, server := newPuppet(t), newPuppet(t)
	listening := do(t, server, puppet.Command{Op: "listen", Network: "tcp4", Address: "127.0.0.1:0"})
	do(t, server, puppet.Command{Op: "serve", ID: listening.ID, Bytes: 10})
	answer := do(t, client, puppet.Command{
		Op: "storm", Network: "tcp4", Address: fmt.Sprintf("127.0.0.1:%d", listening.Port), Count: count, Bytes: 10,
	})
	require.Equal(t, count, answer.Count)
	return listening.Port
}

func TestARingThatIsTooSmallCountsWhatItLoses(t *testing.T) {
	o := observe(t, func(config *Config) {
		config.Ring = ring.Config{Bytes: 4096, WakeupBytes: 4095, PollInterval: 300 * time.Millisecond}
	})
	const count = 500
	port := storm(t, count)
	time.Sleep(100 * time.Millisecond) // the server's last end
	lost := o.lost("ring_full")
	assert.NotZero(t, lost)
	o.finishObserving()
	got := len(o.find(map[string]any{attrFlowReport: "end", attrServerPort: int64(port)}))
	assert.GreaterOrEqual(t, uint64(got)+lost, uint64(2*count), "received or counted as lost")
	assert.Less(t, got, 2*count)
}

func TestAConsumerThatBlocksLosesRecordsButCountsThem(t *testing.T) {
	o := prepare(t, func(config *Config) { config.MetricsInterval = 50 * time.Millisecond })
	o.maxRecords = 50
	release := make(chan struct{})
	o.sinks.Logs = func(ctx context.Context, logs plog.Logs) error {
		<-release
		return o.takeLogs(ctx, logs)
	}
	o.sinks.Metrics = func(ctx context.Context, metrics pmetric.Metrics) error {
		<-release
		return o.takeMetrics(ctx, metrics)
	}
	require.NoError(t, o.Start())
	const count = 500
	port := storm(t, count)
	require.Eventually(t, func() bool { return o.lost("consumer_blocked") > 0 }, 5*time.Second, 10*time.Millisecond)
	close(release)
	o.finishObserving()
	lost := o.lost("consumer_blocked")
	got := len(o.find(map[string]any{attrFlowReport: "end", attrServerPort: int64(port)}))
	assert.Less(t, got, 2*count)
	assert.GreaterOrEqual(t, uint64(got)+lost, uint64(2*count))
	closed := int64(0)
	for _, metrics := range o.metrics {
		closed += closedAt(metrics, port)
	}
	assert.EqualValues(t, 2*count, closed, "metrics wait for the consumer and lose nothing")
}

// closedAt gives how many connections of a service ended.
func closedAt(metrics pmetric.Metrics, port int) (closed int64) {
	eachMetric(metrics, func(metric pmetric.Metric) {
		if metric.Name() != MetricConnectionsClosed {
			return
		}
		for _, point := range metric.Sum().DataPoints().All() {
			if value, ok := point.Attributes().Get(attrServerPort); ok && value.Int() == int64(port) {
				closed += point.IntValue()
			}
		}
	})
	return closed
}

func TestAConsumerThatFailsDoesNotStopTheProbe(t *testing.T) {
	o := prepare(t, func(config *Config) { config.MetricsInterval = 30 * time.Millisecond })
	var calls atomic.Int64
	o.sinks.Metrics = func(context.Context, pmetric.Metrics) error {
		calls.Add(1)
		return errors.New("no room")
	}
	require.NoError(t, o.Start())
	for range 2 {
		seen := calls.Load()
		storm(t, 5)
		require.Eventually(t, func() bool { return calls.Load() > seen }, 5*time.Second, 10*time.Millisecond)
	}
	o.finishObserving()
}

func TestAConsumerThatNeverReturnsDoesNotKeepTheProbeFromStopping(t *testing.T) {
	o := prepare(t, func(config *Config) { config.MetricsInterval = 30 * time.Millisecond })
	o.sinks.Metrics = func(ctx context.Context, _ pmetric.Metrics) error {
		<-ctx.Done()
		return ctx.Err()
	}
	require.NoError(t, o.Start())
	storm(t, 5)
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	start := time.Now()
	require.NoError(t, o.Shutdown(ctx))
	assert.Less(t, time.Since(start), 5*time.Second)
}

func TestAConsumerThatIgnoresItsContextIsLeftBehind(t *testing.T) {
	o := prepare(t, func(config *Config) { config.MetricsInterval = 30 * time.Millisecond })
	release := make(chan struct{})
	o.sinks.Metrics = func(context.Context, pmetric.Metrics) error {
		<-release
		return nil
	}
	require.NoError(t, o.Start())
	storm(t, 5)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	require.ErrorContains(t, o.Shutdown(ctx), "has not returned")
	close(release)
}

func TestAKernelWithoutAHook(t *testing.T) {
	o := prepare(t, nil)
	for i := range o.hooks {
		if o.hooks[i].without != "" {
			o.hooks[i].tracepoint = "no_such_tracepoint"
		}
	}
	require.NoError(t, o.Start(), "what is optional is done without")
	port := storm(t, 20)
	o.wait(40, map[string]any{attrFlowReport: "end", attrServerPort: int64(port)})
	assert.Len(t, o.Attachments(), 1)
	o.finishObserving()

	o = prepare(t, nil)
	o.hooks[0].program = "no_such_program"
	err := o.Start()
	require.ErrorContains(t, err, "inet_sock_set_state")
	require.NoError(t, o.Shutdown(context.Background()), "nothing is left behind")
}

// Each of the two programs that follow state changes does alone what they do together, where the other is interrupted.
func TestEitherProgramFollowsStateChanges(t *testing.T) {
	for _, program := range []string{"tcp_state", "tcp_state_again"} {
		t.Run(program, func(t *testing.T) {
			o := prepare(t, nil)
			o.hooks[0].program, o.hooks[0].again = program, ""
			require.NoError(t, o.Start())
			const count = 100
			port := storm(t, count)
			o.wait(2*count, map[string]any{attrFlowReport: "end", attrServerPort: int64(port)})
			o.finishObserving()
			ends := o.find(map[string]any{attrFlowReport: "end", attrServerPort: int64(port)})
			assert.Len(t, ends, 2*count)
			for _, end := range ends {
				assert.Contains(t, end, attrFlowDuration)
				assert.Contains(t, end, attrFlowStart)
			}
			assert.EqualValues(t, 2*count, o.sums()[MetricConnectionsClosed])
		})
	}
}

// Where the kernel runs no program at the end of a connection, the end is missed and counted.
func TestEndsThatGoUnseenAreCounted(t *testing.T) {
	o := observe(t, func(config *Config) { config.SnapshotInterval = 100 * time.Millisecond })
	p := connect(t, "tcp4", "127.0.0.1", "127.0.0.1")
	o.wait(2, map[string]any{attrFlowReport: "snapshot", attrServerPort: int64(p.serverPort)})
	before := o.lost("end_unseen")
	require.NoError(t, o.Attachments()[0].Close(), "state changes go unseen from here on")
	p.close(t)
	assert.Eventually(t, func() bool { return o.lost("end_unseen") >= before+2 }, 5*time.Second, 20*time.Millisecond)
	assert.Empty(t, o.find(map[string]any{attrFlowReport: "end", attrServerPort: int64(p.serverPort)}))
}

func TestAKernelWithoutARingBuffer(t *testing.T) {
	o := observe(t, func(config *Config) { config.Ring.Kind = ring.PerfBuffer })
	const count = 200
	port := storm(t, count)
	for _, end := range o.wait(2*count, map[string]any{attrFlowReport: "end", attrServerPort: int64(port)}) {
		assert.EqualValues(t, 10, end[attrSentBytes])
		assert.EqualValues(t, 10, end[attrReceivedBytes])
	}
	assert.Zero(t, o.lost("ring_full"))
	assert.Zero(t, o.lost("undecodable"))
}

func TestProbesWorkSideBySide(t *testing.T) {
	first, second := observe(t, nil), observe(t, nil)
	port := storm(t, 50)
	want := map[string]any{attrFlowReport: "end", attrServerPort: int64(port)}
	assert.Len(t, first.wait(100, want), 100)
	assert.Len(t, second.wait(100, want), 100)
	first.finishObserving()
	port = storm(t, 50)
	assert.Len(t, second.wait(100, map[string]any{attrFlowReport: "end", attrServerPort: int64(port)}), 100)
}

// namespace is a network namespace of the test's own, with loopback and a link 10.255.0.0/24 where nobody answers.
type namespace struct{ name string }

func newNamespace(t *testing.T) namespace {
	t.Helper()
	kerneltest.RequireRoot(t)
	n := namespace{name: fmt.Sprintf("ebpfreceiver-%d-%d", os.Getpid(), time.Now().UnixNano()%1e6)}
	run := func(command *exec.Cmd) {
		t.Helper()
		output, err := command.CombinedOutput()
		require.NoError(t, err, "%s: %s", command, output)
	}
	run(exec.Command("ip", "netns", "add", n.name))
	t.Cleanup(func() { run(exec.Command("ip", "netns", "delete", n.name)) })
	run(n.command("ip", "link", "set", "lo", "up"))
	run(n.command("ip", "link", "add", "near", "type", "veth", "peer", "name", "far"))
	run(n.command("ip", "address", "add", "10.255.0.1/24", "dev", "near"))
	run(n.command("ip", "link", "set", "near", "up"))
	run(n.command("ip", "link", "set", "far", "up"))
	return n
}

// command runs in the namespace, and leaves /sys as it is (ip netns exec would mount another).
func (n namespace) command(name string, arguments ...string) *exec.Cmd {
	words := append(append(n.enter(), name), arguments...)
	return exec.Command(words[0], words[1:]...)
}

func (n namespace) enter() []string {
	return []string{"nsenter", "--net=" + filepath.Join("/run/netns", n.name)}
}

package rebeca

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// crashMatrix is every point at which a process or a machine can die between a record and its published result, with
// the tests that kill there. Each ends in a comparison with the log folded again by one thread.
var crashMatrix = []struct {
	point string
	tests []string // directory.Name; "." is this one
}{
	{"before the fold's transaction commits", []string{"table.TestKillPoints", "table.TestFailedFoldLeavesNothing"}},
	{"while the transaction is appended to Badger's log: torn", []string{"table.TestPowerCutLeavesAPrefix"}},
	{"after commit, power lost: the newest transactions are gone, their outputs may be out", []string{
		"table.TestPowerCutLeavesAPrefix", "consumer.TestRestoredSnapshotSendsNothingAgain", ".TestNothingIsPublishedAgain"}},
	{"after commit, before the relay sends", []string{"table.TestKillPoints", ".TestIntentsSurvive"}},
	{"within a Kafka transaction", []string{"consumer.TestTransactions"}},
	{"EndTxn sent, its answer lost", []string{"consumer.TestTransactions", "consumer.TestCrashBetweenAcknowledgementAndTrim"}},
	{"after trim, before the group's commit", []string{"table.TestKillPoints", ".TestStaleGroupOffsetIsIgnored"}},
	{"partition revoked during a fold", []string{"consumer.TestRevokeWithAHalfFullBatchLosesNothing", "table.TestFencing",
		".TestRevokedPartitionIsLeftAlone", "test/kafka.TestGroupOnApacheKafka"}},
	{"during a training step", []string{"online.TestKilledTrainingGoesOn", "online.TestRestartContinues", "online.TestDamagedCheckpoints"}},
	{"during a snapshot", []string{"snapshot.TestCrash", "snapshot.TestCutIsOneMoment"}},
	{"disk full, or a batch larger than a transaction", []string{
		"test/disk.TestFullDisk", ".TestLowDiskPausesAndResumes", "table.TestRulesWithLongRowsSplit"}},
	{"log truncated below the stored offset", []string{".TestGapsStopByNameOrAreRecorded", "consumer.TestGapsAreErrorsByName",
		"test/kafka.TestGapsOnApacheKafka"}},
}

// othersBugs are faults that systems like this one have had, with the tests that would find them here.
var othersBugs = []struct {
	bug   string
	tests []string
}{
	{"a failed publish lost the delta: what is to be sent was cleared before the acknowledgement", []string{
		"consumer.TestRelayOutlivesErrors", "consumer.TestCrashBetweenAcknowledgementAndTrim", "table.TestStaleSetIsBounded", ".TestFullOutboxPausesItsPartition"}},
	{"offsets and marks surfaced as rows in scans and snapshots; a crash under load wiped the store", []string{
		"table.TestScansDoNotMeetOtherKeys", "table.TestKillsLoseAndDoubleNothing", "snapshot.TestTableRestoresAndContinues"}},
	{"a standby was promoted while it lagged", []string{
		".TestServesAfterCatchUp", "table.TestAdoptSurvivesKills", "table.TestSucceedRefuses", ".TestPromoteRefuses"}},
	{"two consumers and a rebalance folded twice", []string{".TestGroupRebalances", "table.TestFencing", "test/kafka.TestGroupOnApacheKafka"}},
	{"restoring a large state took unbounded memory", []string{
		"snapshot.TestBatchesAreBoundedInBytes", "snapshot.TestRestoreMemoryIsBounded", "snapshot.TestReaderWaitsForTheLoader"}},
	{"a partition revoked with a half-full batch lost it", []string{"consumer.TestRevokeWithAHalfFullBatchLosesNothing"}},
	{"a metric was renamed in one mode and alerts went blind", []string{".TestMetricNames"}},
	{"EndTxn answered by an unknown error, the leader moved during an abort, aborted transactions came unsorted", []string{
		"consumer.TestTransactionsOutliveTheBrokersErrors", "consumer.TestLeadersAndCoordinatorsMove", "consumer.TestUnsortedAbortedListIsSorted"}},
	{"a power cut with values near the threshold of the value log", []string{"table.TestPowerCutNearTheValueThreshold"}},
	{"restoring large rows failed: transaction too big", []string{"table.TestRestoreOfLargeRows"}},
	{"deleted values came back, or the store did not open, after the value log was collected", []string{"table.TestDeleteCollectReopen"}},
	{"a start with the brokers down went on in silence", []string{".TestStartErrors", "cmd/rebeca.TestExits"}},
	{"what eviction knows was lost by a snapshot: other evictions afterwards", []string{
		"table.TestAnyInterleavingGivesTheOraclesFacts", "table.TestExportAndLoad"}},
	{"an unknown user was given a neighbour's row", []string{"table.TestUnknownUsersGetNobodysRow"}},
	{"a log read on from an offset that retention or a new topic had made another's", []string{
		"consumer.TestOtherRecordIsKnownByItsFingerprint", ".TestGapsStopByNameOrAreRecorded"}},
}

// TestEveryRowHasItsTest fails when a row of the tables names no test, or one that is not there.
func TestEveryRowHasItsTest(t *testing.T) {
	there := testsThere(t)
	check := func(row string, tests []string) {
		if len(tests) == 0 {
			t.Errorf("%s: no test", row)
		}
		for _, name := range tests {
			if !there[name] {
				t.Errorf("%s: %s is not there", row, name)
			}
		}
	}
	for _, r := range crashMatrix {
		check(r.point, r.tests)
	}
	for _, r := range othersBugs {
		check(r.bug, r.tests)
	}
	if n := len(crashMatrix); n != 12 {
		t.Errorf("the matrix has %d rows, want 12", n)
	}
}

// testsThere are the tests of all packages as directory.Name.
func testsThere(t *testing.T) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir := strings.TrimPrefix(filepath.ToSlash(filepath.Dir(path)), ".")
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Test") {
				out[dir+"."+f.Name.Name] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestStaleGroupOffsetIsIgnored: the group's offset is for lag tools. One that is far behind, or ahead, moves no fold.
func TestStaleGroupOffsetIsIgnored(t *testing.T) {
	s := newStand(t)
	s.config.Roles, s.config.Generate.Count = []string{RoleWorker}, 0
	user := s.userIn(0)
	for i, stale := range []int64{0, 1000} {
		svc, stop := s.serve()
		s.events(user, fmt.Sprint(i), 5)
		s.until("folded", func() bool { return svc.Status().EventsFolded == 5 })
		stop()
		s.commitForGroup(stale)
	}
	svc, _ := s.serve()
	s.events(user, "last", 2)
	s.until("folded", func() bool { return svc.Status().EventsFolded == 2 })
	if n := svc.metrics.duplicatesN.Load(); n != 0 {
		t.Errorf("%d records were read again", n)
	}
	if row, _, err := svc.table.User(user); err != nil || row.Events != 12 {
		t.Errorf("%d events (%v), want 12", row.Events, err)
	}
}

// commitForGroup writes the group's offset of feedback[0] as another program would.
func (s *stand) commitForGroup(offset int64) {
	s.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(s.config.Kafka.Brokers...), kgo.MaxVersions(kversion.V3_0_0()))
	if err != nil {
		s.t.Fatal(err)
	}
	defer cl.Close()
	r := kmsg.NewPtrOffsetCommitRequest()
	r.Group, r.Generation = "rebeca", -1
	topic, partition := kmsg.NewOffsetCommitRequestTopic(), kmsg.NewOffsetCommitRequestTopicPartition()
	topic.Topic, partition.Offset = "feedback", offset
	topic.Partitions = append(topic.Partitions, partition)
	r.Topics = append(r.Topics, topic)
	resp, err := r.RequestWith(s.t.Context(), cl)
	if err != nil {
		s.t.Fatal(err)
	}
	if code := resp.Topics[0].Partitions[0].ErrorCode; code != 0 {
		s.t.Fatalf("committing for the group: error code %d", code)
	}
}

// TestMetricNames holds the names of all metrics in every mode: alerts stand on them. Names of the Go runtime are its own.
func TestMetricNames(t *testing.T) {
	var out bytes.Buffer
	for i, roles := range [][]string{{RoleWorker, RoleTrainer}, {RoleWorker}, {RoleTrainer}, {RoleWorker}} {
		s := newStand(t)
		s.config.Roles = roles
		decoder := i == 3
		if decoder {
			s.config.Prior.Dim, s.config.Decoder.Manifest = 16, "shapes"
		}
		svc, stop := s.serve()
		families, err := svc.options.Registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		mode := strings.Join(roles, " and ")
		if decoder {
			mode += ", with a decoder"
		}
		fmt.Fprintln(&out, "#", mode)
		for _, f := range families {
			labels := map[string]bool{}
			for _, m := range f.GetMetric() {
				for _, l := range m.GetLabel() {
					labels[l.GetName()] = true
				}
			}
			names := make([]string, 0, len(labels))
			for l := range labels {
				names = append(names, l)
			}
			slices.Sort(names)
			fmt.Fprintln(&out, strings.Join(append([]string{strings.ToLower(f.GetType().String()), f.GetName()}, names...), " "))
		}
		stop()
	}
	path := "testdata/metrics.txt"
	if f := flag.Lookup("update"); f != nil && f.Value.String() == "true" {
		if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), want) {
		t.Errorf("metrics are not those of %s: rename none; new ones by -update\n%s", path, out.String())
	}
}

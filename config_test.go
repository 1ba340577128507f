package rebeca

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"go.yaml.in/yaml/v3"

	"rebeca/prior"
	"rebeca/sampler"
)

var update = flag.Bool("update", false, "rewrite golden files")

func TestGoodConfigs(t *testing.T) {
	files, err := filepath.Glob("testdata/*.good.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no good files: %v", err)
	}
	for _, f := range append(files, "rebeca.example.yaml") {
		if _, err := LoadConfig(f); err != nil {
			t.Errorf("%s: %v", f, err)
		}
	}
}

// TestBadConfigs holds every message against its golden file.
func TestBadConfigs(t *testing.T) {
	files, err := filepath.Glob("testdata/*.bad.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no bad files: %v", err)
	}
	for _, f := range files {
		_, err := LoadConfig(f)
		if err == nil {
			t.Errorf("%s is accepted", f)
			continue
		}
		golden := strings.TrimSuffix(f, ".yaml") + ".txt"
		if *update {
			if err := os.WriteFile(golden, []byte(err.Error()+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, rerr := os.ReadFile(golden)
		if rerr != nil {
			t.Fatal(rerr)
		}
		if got := err.Error() + "\n"; got != string(want) {
			t.Errorf("%s:\n%swant:\n%s", f, got, want)
		}
	}
}

// TestExampleIsComplete fails when a key is missing from the example, or when
// the example shows another value than the default.
func TestExampleIsComplete(t *testing.T) {
	got, err := LoadConfig("rebeca.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want := DefaultConfig()
	want.Kafka.Brokers, want.State.Dir, want.Prior.Dim = got.Kafka.Brokers, got.State.Dir, got.Prior.Dim
	g, w := mustYAML(t, got), mustYAML(t, want)
	if g != w {
		t.Errorf("the example differs from the defaults:\n%s\nwant\n%s", g, w)
	}
	b, err := os.ReadFile("rebeca.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var shown, all yaml.Node
	if err := errors.Join(yaml.Unmarshal(b, &shown), yaml.Unmarshal([]byte(w), &all)); err != nil {
		t.Fatal(err)
	}
	have := keys(&shown, "")
	for k := range keys(&all, "") {
		if !have[k] {
			t.Errorf("the example lacks %s", k)
		}
	}
}

// TestSASL holds each mechanism of the file against a broker that asks for it.
func TestSASL(t *testing.T) {
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("hush\nnot this\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, mechanism := range []string{"plain", "scram-sha-256", "scram-sha-512"} {
		cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.Superuser(strings.ToUpper(mechanism), "ada", "hush"))
		if err != nil {
			t.Fatal(err)
		}
		defer cluster.Close()
		for user, welcome := range map[string]bool{"ada": true, "eve": false} {
			c, err := ParseConfig(fmt.Appendf(nil, "kafka: {brokers: [%q], sasl: {mechanism: %s, username: %s, password_file: %q}}\n"+
				"state: {dir: x}\nprior: {dim: 16}\n", cluster.ListenAddrs()[0], mechanism, user, password))
			if err != nil {
				t.Fatal(err)
			}
			client, err := c.NewClient()
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			if err := client.Ping(t.Context()); (err == nil) != welcome {
				t.Errorf("%s as %s: %v", mechanism, user, err)
			}
		}
	}
}

func TestCheckFiles(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"secret": "hush\n", "empty": "\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	with := func(token, password, manifest, library string) error {
		c := DefaultConfig()
		c.HTTP.TokenFile = filepath.Join(dir, token)
		c.Kafka.SASL = SASLConfig{Mechanism: "plain", Username: "u", PasswordFile: filepath.Join(dir, password)}
		c.Decoder.Manifest, c.ONNXRuntime.Library = filepath.Join(dir, manifest), filepath.Join(dir, library)
		return c.CheckFiles()
	}
	if err := with("secret", "secret", "secret", "secret"); err != nil {
		t.Error(err)
	}
	if err := DefaultConfig().CheckFiles(); err != nil {
		t.Error(err)
	}
	err := with("empty", "absent", "gone.json", "gone.so")
	if err == nil {
		t.Fatal("absent files are there")
	}
	lines := strings.Split(err.Error(), "\n")
	for i, want := range []string{"http.token_file: ", "kafka.sasl.password_file: ", "decoder.manifest: ", "onnxruntime.library: "} {
		if len(lines) != 4 || !strings.HasPrefix(lines[i], want) || strings.Count(lines[i], want) != 1 {
			t.Errorf("line %d of %q does not name %s", i, lines, want)
		}
	}
}

func mustYAML(t *testing.T, v any) string {
	t.Helper()
	b, err := yaml.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func keys(n *yaml.Node, path string) map[string]bool {
	out := map[string]bool{}
	if n.Kind == yaml.DocumentNode {
		return keys(n.Content[0], path)
	}
	if n.Kind != yaml.MappingNode {
		return out
	}
	for i := 0; i < len(n.Content); i += 2 {
		at := path + "." + n.Content[i].Value
		out[at] = true
		for k := range keys(n.Content[i+1], at) {
			out[k] = true
		}
	}
	return out
}

func FuzzParseConfig(f *testing.F) {
	for _, s := range []string{"kafka: {brokers: [a:1]}", "a: &x {b: *x}", "- 1", "prior: {dim: 1e9}", "roles: null", "? {a: b}\n: c"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseConfig(b)
		if err == nil && c.Validate() != nil {
			t.Error("accepted a configuration that is not valid")
		}
	})
}

// TestPriorOptions follows every key of the prior to the model's configuration.
func TestPriorOptions(t *testing.T) {
	c, err := LoadConfig("testdata/loss.good.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want := prior.DefaultConfig(1024)
	want.Tokens = 16
	want.Loss = prior.Loss{
		Objective: "v", Schedule: "linear", TimeSampling: "lognormal", TimeMean: -.5, TimeStd: 1.2, Weighting: "min_snr", Gamma: 5,
	}
	if got := c.PriorShape(); got != want {
		t.Errorf("prior is %+v, want %+v", got, want)
	}
	if got := DefaultConfig().Prior.Loss; got != prior.DefaultLoss() {
		t.Errorf("the default loss is %+v", got)
	}
}

// TestStudentOptions follows the student's keys to the trainer and the sampler.
func TestStudentOptions(t *testing.T) {
	c, err := LoadConfig("testdata/student.good.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c.Sampler.Interval = [2]float64{-.5, .5}
	o := c.onlineConfig()
	if !o.Student || o.StudentBound != .2 || o.StudentLow != -.5 || o.StudentHigh != .5 || o.Distances == nil {
		t.Errorf("the trainer's student: %v, bound %v, interval %v to %v", o.Student, o.StudentBound, o.StudentLow, o.StudentHigh)
	}
	if got := c.samplerOptions().Passes; got != 2 {
		t.Errorf("%v passes, want 2", got)
	}
	if d := DefaultConfig(); d.onlineConfig().Student || d.samplerOptions().Passes != sampler.AutoPasses {
		t.Errorf("by default: student %v, passes %v", d.onlineConfig().Student, d.samplerOptions().Passes)
	}
}

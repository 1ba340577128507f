package rebeca_test

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "rebeca"

// tiers says where each package stands: a package imports only from lower tiers. The root package is ".". Folders that only hold
// programs or tests about the whole stand on top. internal/ is below all of it and needs no entry.
var tiers = map[string]int{
	"schemas":                 0,
	"prior":                   0,
	"prior/graph":             0,
	"dataset":                 1,
	"table":                   1,
	"online":                  1,
	"online/people":           1,
	"sampler":                 1,
	"sampler/stablediffusion": 1,
	"consumer":                2,
	"images":                  2,
	"snapshot":                2,
	"web":                     2,
	"eval":                    2,
	"eval/shapes":             2,
	".":                       3,

	"cmd/rebeca":    4,
	"bench/demo":    4,
	"bench/fold":    4,
	"bench/scale":   4,
	"bench/prior":   4,
	"bench/sampler": 4,
	"test/browser":  4,
	"test/chaos":    4,
	"test/disk":     4,
	"test/kafka":    4,
	"test/overload": 4,

	"tools/shapes-render": 4,
}

// exceptions are the imports allowed within a tier: a package and the one that was split off from it, an adapter and the two it joins.
var exceptions = map[[2]string]bool{
	{"prior", "prior/graph"}:               true,
	{"eval", "eval/shapes"}:                true,
	{"sampler", "sampler/stablediffusion"}: true,
	{"online/people", "online"}:            true,
	{"online/people", "table"}:             true,
}

// shapeless are package names that say nothing of what is inside.
var shapeless = []string{"util", "utils", "common", "helper", "helpers", "misc", "base", "shared"}

func TestImportsPointDown(t *testing.T) {
	edges, err := imports(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, from := range slices.Sorted(maps.Keys(edges)) {
		for _, to := range edges[from] {
			if fault := judge(from, to); fault != "" {
				t.Error(fault)
			}
		}
	}
}

func TestEveryPackageHasItsPlace(t *testing.T) {
	edges, err := imports(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range slices.Sorted(maps.Keys(edges)) {
		if fault := place(dir); fault != "" {
			t.Error(fault)
		}
	}
}

// The rules above must be able to say no.
func TestRulesRefuse(t *testing.T) {
	for _, c := range []struct {
		from, to string
		allowed  bool
	}{
		{"table", "schemas", true},
		{".", "consumer", true},
		{"prior", "prior/graph", true},
		{"eval", "eval/shapes", true},
		{"sampler", "sampler/stablediffusion", true},
		{"sampler", "internal/ort", true},
		{"internal/ort", "internal/process", true},
		{"cmd/rebeca", ".", true},
		{"schemas", "table", false},
		{"online", "table", false},
		{"table", "online", false},
		{"sampler", "table", false},
		{"prior/graph", "prior", false},
		{"eval/shapes", "eval", false},
		{"sampler/stablediffusion", "sampler", false},
		{"prior", "schemas", false},
		{"consumer", ".", false},
		{"internal/ort", "prior", false},
		{"internal/process", ".", false},
		{"table", "unheard/of", false},
	} {
		if fault := judge(c.from, c.to); (fault == "") != c.allowed {
			t.Errorf("%s -> %s: allowed %v, said %q", c.from, c.to, c.allowed, fault)
		}
	}
	for dir, fine := range map[string]bool{"table": true, "internal/ort": true, "new": false, "internal/util": false, "internal/x/helpers": false} {
		if fault := place(dir); (fault == "") != fine {
			t.Errorf("%s: fine %v, said %q", dir, fine, fault)
		}
	}
}

// judge returns what is wrong with an import, empty when nothing is. Packages are named by their folders.
func judge(from, to string) string {
	switch {
	case isInternal(from) && !isInternal(to):
		return fmt.Sprintf("%s imports %s: internal packages import nothing of ours above them", from, to)
	case isInternal(from) || isInternal(to) || exceptions[[2]string{from, to}]:
		return ""
	}
	a, known := tiers[from]
	b, knownToo := tiers[to]
	switch {
	case !known || !knownToo:
		return fmt.Sprintf("%s imports %s: both need an entry in the table of tiers", from, to)
	case b >= a:
		return fmt.Sprintf("%s (tier %d) imports %s (tier %d): imports point to lower tiers only; declare the interface you need instead", from, a, to, b)
	}
	return ""
}

// place returns what is wrong with a folder's name or place, empty when nothing is.
func place(dir string) string {
	for part := range strings.SplitSeq(dir, "/") {
		if slices.Contains(shapeless, part) {
			return fmt.Sprintf("%s: %q does not say what the package is for", dir, part)
		}
	}
	if _, known := tiers[dir]; !known && !isInternal(dir) {
		return fmt.Sprintf("%s: a folder with Go code needs an entry in the table of tiers", dir)
	}
	return ""
}

func isInternal(dir string) bool { return strings.HasPrefix(dir, "internal/") }

// imports reads every Go file below root, whatever its build tags, and returns for each folder with Go code the folders of this
// module that it imports. A test outside its package (package x_test) may look down from anywhere, and is left out; one
// inside may use the real neighbour of its own tier that the package knows by an interface.
func imports(root string) (map[string][]string, error) {
	edges := map[string][]string{}
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if name != root && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata" || isModule(name)) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		dir := filepath.ToSlash(filepath.Dir(name))
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		if _, seen := edges[dir]; !seen {
			edges[dir] = nil // it counts even when it imports nothing of ours
		}
		if strings.HasSuffix(file.Name.Name, "_test") {
			return nil
		}
		for _, spec := range file.Imports {
			to, ours := folder(strings.Trim(spec.Path.Value, `"`))
			if strings.HasSuffix(name, "_test.go") && tiers[to] == tiers[dir] {
				continue
			}
			if ours && to != dir && !slices.Contains(edges[dir], to) {
				edges[dir] = append(edges[dir], to)
			}
		}
		return nil
	})
	return edges, err
}

// isModule says whether a folder is a module of its own, which is none of ours to judge.
func isModule(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}

// folder returns the folder of an import path of this module.
func folder(importPath string) (string, bool) {
	if importPath == module {
		return ".", true
	}
	rest, ours := strings.CutPrefix(importPath, module+"/")
	return path.Clean(rest), ours
}

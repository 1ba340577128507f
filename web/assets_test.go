package web

import (
	"io/fs"
	"path"
	"regexp"
	"strings"
	"testing"
)

// TestAssetsAreComplete: the page names nothing that is not embedded, and nothing of another host:
// it works without internet.
func TestAssetsAreComplete(t *testing.T) {
	reference := regexp.MustCompile(`(?:src=|href=|from |url\()"?'?(/assets/[\w.]+)`)
	elsewhere := regexp.MustCompile(`(?:https?:)?//[\w-]+\.[\w.-]+`)
	used := map[string]bool{"index.html": true}
	names, err := fs.Glob(assets, "assets/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		text, err := fs.ReadFile(assets, name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range reference.FindAllStringSubmatch(string(text), -1) {
			used[path.Base(m[1])] = true
			if _, err := fs.Stat(assets, m[1][1:]); err != nil {
				t.Errorf("%s names %s: %v", name, m[1], err)
			}
		}
		for _, url := range elsewhere.FindAllString(string(text), -1) {
			if !strings.HasSuffix(url, "//www.w3.org") { // a name of XML, never fetched
				t.Errorf("%s names %s", name, url)
			}
		}
		if strings.HasSuffix(name, ".html") && regexp.MustCompile(`(?i)<script[^>]*>[^<]|\sstyle=|\son\w+=`).Match(text) {
			t.Errorf("%s holds inline script or style, which the content policy forbids", name)
		}
	}
	for _, name := range names {
		if !used[path.Base(name)] {
			t.Errorf("%s is embedded and never used", name)
		}
	}
}

// TestAssetTypes: modules are run only when they come as JavaScript.
func TestAssetTypes(t *testing.T) {
	s := New(newFake().options())
	for name, want := range map[string]string{"main.js": "text/javascript", "style.css": "text/css", "icon.svg": "image/svg+xml"} {
		if got := call(t, s, "GET", "/assets/"+name, "").header.Get("Content-Type"); !strings.HasPrefix(got, want) {
			t.Errorf("%s comes as %q", name, got)
		}
	}
}

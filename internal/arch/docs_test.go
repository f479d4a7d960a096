package arch

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var (
	linkPattern = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	testPattern = regexp.MustCompile("\\[`((?:Test|Fuzz|Example|Benchmark)\\w+)`\\]\\(([^)\\s]+)\\)")
	namePattern = regexp.MustCompile("`((?:Test|Fuzz|Example|Benchmark)[A-Z_]\\w*)`")
	// A metric's name stands whole in the code, or in the comment of a constructor
	// that puts it together.
	metricPattern = regexp.MustCompile("(?m)(?:\"|^//\\t)(wattfold[_.][a-z0-9_.]*[a-z0-9])\\b")
	shownPattern  = regexp.MustCompile("`(wattfold_[a-z0-9_]+)`")
	recordPattern = regexp.MustCompile(`^(\d{4})-[a-z0-9-]+\.md$`)
)

// TestLinks follows every relative link of every document.
func TestLinks(t *testing.T) {
	for _, doc := range documents(t) {
		for _, link := range linkPattern.FindAllStringSubmatch(prose(doc.text), -1) {
			target, fragment, _ := strings.Cut(link[1], "#")
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			at := doc.path
			if target != "" {
				at = filepath.Join(filepath.Dir(doc.path), filepath.FromSlash(target))
			}
			if _, err := os.Stat(at); err != nil {
				t.Errorf("%s: link to %s leads nowhere", doc.name, link[1])
				continue
			}
			if fragment != "" && strings.HasSuffix(at, ".md") && !slices.Contains(anchors(t, at), fragment) {
				t.Errorf("%s: %s has no heading for #%s", doc.name, target, fragment)
			}
		}
	}
}

// TestNamedTestsExist looks up every test that a document names, and that the
// file it links to is the one that holds it.
func TestNamedTestsExist(t *testing.T) {
	tests := testFunctions(t)
	for _, doc := range documents(t) {
		for _, found := range namePattern.FindAllStringSubmatch(doc.text, -1) {
			if len(tests[found[1]]) == 0 {
				t.Errorf("%s names %s, and there is no such test", doc.name, found[1])
			}
		}
		for _, found := range testPattern.FindAllStringSubmatch(doc.text, -1) {
			at := filepath.Join(filepath.Dir(doc.path), filepath.FromSlash(found[2]))
			if len(tests[found[1]]) > 0 && !slices.Contains(tests[found[1]], at) {
				t.Errorf("%s: %s is in %v, not in %s", doc.name, found[1], tests[found[1]], found[2])
			}
		}
	}
}

// TestEveryLawHasATest reads docs/method.md: a law that no test keeps is a wish.
func TestEveryLawHasATest(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root(t), "docs", "method.md"))
	if err != nil {
		t.Fatal(err)
	}
	laws := strings.Split(string(text), "\n### ")[1:]
	if len(laws) == 0 {
		t.Fatal("docs/method.md has no laws: one is a heading of the third level")
	}
	for _, law := range laws {
		title, body, _ := strings.Cut(law, "\n")
		if next := strings.Index(body, "\n## "); next >= 0 {
			body = body[:next]
		}
		if !testPattern.MatchString(body) {
			t.Errorf("docs/method.md: %q names no test that keeps it", title)
		}
	}
}

// TestMetricsAreDocumented holds docs/operations.md against the instruments
// that the code makes, both ways. Names of counters may end in _total, which
// the format of Prometheus adds where it is not there.
func TestMetricsAreDocumented(t *testing.T) {
	root := root(t)
	made := map[string]string{}
	for _, folder := range []string{"services", "gateway", "internal", "cmd"} {
		walkGo(t, filepath.Join(root, folder), func(path string) {
			if strings.HasSuffix(path, "_test.go") || filepath.Base(path) != "metrics.go" {
				return
			}
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range metricPattern.FindAllStringSubmatch(string(text), -1) {
				made[strings.TrimSuffix(strings.ReplaceAll(name[1], ".", "_"), "_total")] = path
			}
		})
	}
	text, err := os.ReadFile(filepath.Join(root, "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]bool{}
	for _, name := range shownPattern.FindAllStringSubmatch(string(text), -1) {
		shown[strings.TrimSuffix(name[1], "_total")] = true
	}
	for name, path := range made {
		if !shown[name] {
			t.Errorf("%s makes %s, and docs/operations.md does not explain it", path, name)
		}
	}
	for name := range shown {
		if made[name] == "" {
			t.Errorf("docs/operations.md explains %s, and nothing makes it", name)
		}
	}
}

// TestConfigurationIsDocumented holds docs/configuration.md against the keys of
// the configuration structs, so that a new key comes with its explanation.
func TestConfigurationIsDocumented(t *testing.T) {
	root := root(t)
	text, err := os.ReadFile(filepath.Join(root, "docs", "configuration.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{"services", "gateway", "cmd"} {
		walkGo(t, filepath.Join(root, folder), func(path string) {
			if strings.HasSuffix(path, "_test.go") {
				return
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Error(err)
				return
			}
			ast.Inspect(file, func(n ast.Node) bool {
				field, ok := n.(*ast.Field)
				if !ok || field.Tag == nil {
					return true
				}
				key := configKey(field.Tag.Value)
				if key != "" && !regexp.MustCompile("[`.]"+regexp.QuoteMeta(key)+`(\[\])?[.`+"`]").Match(text) {
					t.Errorf("%s: docs/configuration.md does not explain `%s`", path, key)
				}
				return true
			})
		})
	}
}

// configKey returns the key that a field of a configuration has in the file.
func configKey(tag string) string {
	tag, err := strconv.Unquote(tag)
	if err != nil {
		return ""
	}
	key, ok := reflect.StructTag(tag).Lookup("koanf")
	if !ok {
		key = reflect.StructTag(tag).Get("yaml")
	}
	key, _, _ = strings.Cut(key, ",")
	return strings.Trim(key, "-")
}

// TestDecisionRecords: numbers never move, because comments cite them.
func TestDecisionRecords(t *testing.T) {
	dir := filepath.Join(root(t), "docs", "adr")
	index, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	number := 0
	for _, entry := range entries {
		if entry.Name() == "README.md" {
			continue
		}
		found := recordPattern.FindStringSubmatch(entry.Name())
		if found == nil {
			t.Errorf("docs/adr/%s is not named NNNN-slug.md", entry.Name())
			continue
		}
		number++
		if want := fmt.Sprintf("%04d", number); found[1] != want {
			t.Errorf("docs/adr/%s: the next number is %s", entry.Name(), want)
		}
		if !strings.Contains(string(index), "("+entry.Name()+")") {
			t.Errorf("docs/adr/README.md does not list %s", entry.Name())
		}
		text, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range []string{"\nStatus: ", "\n## Context\n", "\n## Decision\n", "\n## Consequences\n", "\n## What would change our mind\n"} {
			if !strings.Contains(string(text), part) {
				t.Errorf("docs/adr/%s has no %q", entry.Name(), strings.TrimSpace(part))
			}
		}
	}
}

type document struct {
	name, path, text string
}

// documents returns the Markdown files at the root and under docs.
func documents(t *testing.T) []document {
	t.Helper()
	root := root(t)
	paths, err := filepath.Glob(filepath.Join(root, "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(filepath.Join(root, "docs"), func(path string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".md") {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var docs []document
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			t.Fatal(err)
		}
		docs = append(docs, document{name: name, path: path, text: string(text)})
	}
	return docs
}

// prose returns the text without its fenced blocks, in which brackets and
// parentheses mean other things.
func prose(text string) string {
	var out strings.Builder
	fenced := false
	for line := range strings.Lines(text) {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			fenced = !fenced
			continue
		}
		if !fenced && !strings.HasPrefix(line, "    ") {
			out.WriteString(line)
		}
	}
	return out.String()
}

// anchors returns the fragments that the headings of a document have on the
// usual forges: lower case, spaces as hyphens, no other punctuation.
func anchors(t *testing.T, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(prose(string(text))) {
		if !strings.HasPrefix(line, "#") {
			continue
		}
		heading := strings.ToLower(strings.TrimSpace(strings.TrimLeft(line, "#")))
		found = append(found, strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-', r == '_', r >= 'a' && r <= 'z', r >= '0' && r <= '9':
				return r
			}
			return -1
		}, heading))
	}
	return found
}

// testFunctions maps the name of every test function to the files that have one.
func testFunctions(t *testing.T) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	walkGo(t, root(t), func(path string) {
		if !strings.HasSuffix(path, "_test.go") {
			return
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Error(err)
			return
		}
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil {
				found[f.Name.Name] = append(found[f.Name.Name], path)
			}
		}
	})
	return found
}

// walkGo calls visit with every Go file below dir, generated and hidden folders
// left out.
func walkGo(t *testing.T, dir string, visit func(path string)) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			name := entry.Name()
			if path != dir && (strings.HasPrefix(name, ".") || slices.Contains([]string{"testdata", "third_party", "gen", "wattfold-data"}, name)) {
				return filepath.SkipDir
			}
			return nil
		}
		if strings.HasSuffix(path, ".go") {
			visit(path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

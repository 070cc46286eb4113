package app

import (
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ordergate/ordergate/order"
)

// guidePrelude is what the first guide tells its reader to type, for this installation. Its last line is that guide's own.
const guidePrelude = `set -eu
curl() { command curl -sS --max-time 30 "$@"; echo; }
API=%s KEY=%s
%s
`

var (
	guideBlock = regexp.MustCompile("(?ms)^```(sh|http)\n(.*?)^```$")
	guideKeys  = regexp.MustCompile(`(?m)^(API|KEY)=.*\n`)
	guideNew   = regexp.MustCompile(`(?m)^new\(\) \{.*\}$`)
)

// TestGuides runs the commands of each guide of the contract, in their order. A block of ```http shows lines of the output of the block
// before it, in their order; "..." in it stands for anything.
func TestGuides(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"bash", "curl", "python3"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("the guides' commands need %s: sudo apt-get install %s", program, program)
		}
	}
	g := startGateway(t, nil)
	g.sampleCatalogue()
	api, err := g.assemble().API(demoKeys(order.Owner{Account: 1, Mode: "test"}, time.Now().Add(-time.Minute)))
	must(t, err)
	server := httptest.NewServer(api)
	t.Cleanup(server.Close)
	files, err := filepath.Glob("../../openapi/guides/*.md")
	must(t, err)
	first, err := os.ReadFile(files[0])
	must(t, err)
	for _, file := range files {
		content, err := os.ReadFile(file)
		must(t, err)
		var script strings.Builder
		fmt.Fprintf(&script, guidePrelude, server.URL, DemoKey, guideNew.Find(first))
		want := [][]string{}
		for _, block := range guideBlock.FindAllStringSubmatch(string(content), -1) {
			if block[1] == "sh" {
				script.WriteString("echo '>>>'\n" + guideKeys.ReplaceAllString(block[2], ""))
				want = append(want, nil)
				continue
			}
			want[len(want)-1] = strings.Split(strings.TrimSpace(block[2]), "\n")
		}
		t.Run(filepath.Base(file), func(t *testing.T) { // one after another: the first orders are on top of lists
			out, err := exec.CommandContext(t.Context(), "bash", "-c", script.String()).CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for i, output := range strings.Split(strings.ReplaceAll(string(out), "\r", ""), ">>>\n")[1:] {
				lines := strings.Split(output, "\n")
				for _, line := range want[i] {
					form := regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(line), `\.\.\.`, ".*") + "$")
					for len(lines) > 0 && !form.MatchString(lines[0]) {
						lines = lines[1:]
					}
					if len(lines) == 0 {
						t.Fatalf("block %d shows %s, which did not come:\n%s", i+1, line, output)
					}
				}
			}
		})
	}

	sandbox, err := os.ReadFile("../../openapi/guides/17-sandbox.md")
	must(t, err)
	names := []string{}
	for key := range demoKeys(order.Owner{}, time.Now()) {
		names = append(names, key)
	}
	for _, coupon := range sampleCoupons {
		names = append(names, coupon.code)
	}
	for _, name := range names {
		if !strings.Contains(string(sandbox), "| `"+name+"` |") {
			t.Errorf("the guide of the sandbox does not know %s", name)
		}
	}
}

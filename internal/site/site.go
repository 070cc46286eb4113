// Package site serves built pages, the portal below /docs and the console below /console, in front of the API. Pages are static, need
// no key and hold none; what an installation tells its pages is a document of JSON beside them.
package site

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.uber.org/zap"
)

// Config has the pages and settings of a Site.
type Config struct {
	// Mounts are the built pages by the path that they stand below, as in "/docs". A file of a tree is served at its path, one that ends
	// in .html without that ending, index.html at its folder. Below assets/ a name changes with its content and is kept for ever.
	Mounts map[string]fs.FS
	// Documents are what this installation tells its pages: values for JSON, by their path below a mount, as in "/docs/config.json".
	// They are not stored by anybody.
	Documents map[string]any
	// Styled are the paths of pages whose scripts write styles of their own.
	Styled []string
	// NotFound is the path of the page that a path below any mount is answered with, under status 404, if nothing stands there; empty: a sentence.
	NotFound string
	// Home is where a browser goes that opens the bare address; empty: to the API, as everybody else does.
	Home     string
	API      http.Handler // answers all that is not below a mount
	Log      *zap.Logger
	Registry prometheus.Registerer
}

// Site is the handler of pages and API.
type Site struct {
	mounts   map[string]map[string]*page // by mount, then by path
	spelled  map[string]string           // the paths, by themselves in small letters
	notFound *page                       // nil: a sentence
	home     string
	api      http.Handler
	log      *zap.Logger
	requests *prometheus.HistogramVec
}

// page is one finished response.
type page struct {
	body         []byte
	etag         string // without quotes
	contentType  string
	cacheControl string
	policy       string
	zipped       func() []byte // nil: the body is sent as it is
}

const (
	// revalidated: a page is asked about again each time, by its ETag.
	revalidated = "no-cache"
	// forever: the name has a hash of the content.
	forever = "public, max-age=31536000, immutable"
	// unstored: it may hold a key.
	unstored = "no-store"
)

// strict is the policy of all pages: nothing from elsewhere, no inline script or style, no frame around them.
const strict = "style-src 'self'; " + common

// common is the part of the policy that is the same for all pages.
const common = "default-src 'none'; script-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; manifest-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// styled is the policy of a page whose scripts write styles: those of Scalar, whose editor makes its rules as it goes, so that no hash can
// name them. A style, unlike a script, can send nothing away: img-src and font-src are ours alone.
const styled = "style-src 'self' 'unsafe-inline'; " + common

// New reads all pages. The error is a tree that cannot be read, or a document that is no JSON or below no mount.
func New(c Config) (*Site, error) {
	s := &Site{
		mounts: map[string]map[string]*page{}, spelled: map[string]string{}, home: c.Home, api: c.API, log: c.Log,
		requests: promauto.With(c.Registry).NewHistogramVec(prometheus.HistogramOpts{
			Name: "ordergate_page_seconds", Help: "Time to respond to a request for a page of the portal or the console.",
			Buckets: []float64{.0005, .005, .05, .5, 5},
		}, []string{"mount", "status"}),
	}
	for mount, tree := range c.Mounts {
		pages, err := readTree(mount, tree)
		if err != nil {
			return nil, fmt.Errorf("read the pages of %s: %w", mount, err)
		}
		s.mounts[mount] = pages
		for at := range pages {
			s.spelled[strings.ToLower(at)] = at
		}
	}
	if c.NotFound != "" {
		if s.notFound = s.mounts[mountOf(c.NotFound)][c.NotFound]; s.notFound == nil {
			return nil, fmt.Errorf("there is no page %s", c.NotFound)
		}
	}
	for _, name := range c.Styled {
		p := s.mounts[mountOf(name)][name]
		if p == nil {
			return nil, fmt.Errorf("there is no page %s", name)
		}
		p.policy = styled
	}
	for name, value := range c.Documents {
		pages := s.mounts[mountOf(name)]
		if pages == nil {
			return nil, fmt.Errorf("the document %s stands below no mount", name)
		}
		body, err := json.Marshal(value)
		if err != nil {
			return nil, fmt.Errorf("the document %s: %w", name, err)
		}
		pages[name] = newPage(name, append(body, '\n'), unstored)
	}
	return s, nil
}

// mountOf is the first element of a path, with its slash.
func mountOf(p string) string {
	if end := strings.IndexByte(p[min(1, len(p)):], '/'); end >= 0 {
		return p[:end+1]
	}
	return p
}

// readTree makes a page of each file.
func readTree(mount string, tree fs.FS) (map[string]*page, error) {
	pages := map[string]*page{}
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		cacheControl, at := revalidated, path.Join(mount, name)
		switch base, isPage := strings.CutSuffix(at, ".html"); {
		case isPage && path.Base(base) == "index":
			at = path.Dir(base)
		case isPage:
			at = base
		case strings.HasPrefix(name, "assets/"):
			cacheControl = forever
		}
		pages[at] = newPage(name, body, cacheControl)
		return nil
	})
	return pages, err
}

// zippable are the types that become smaller.
func zippable(contentType string) bool {
	return strings.HasPrefix(contentType, "text/") || strings.HasPrefix(contentType, "application/json") || strings.HasPrefix(contentType, "image/svg")
}

func newPage(name string, body []byte, cacheControl string) *page {
	sum := sha256.Sum256(body)
	p := &page{
		body: body, etag: base64.RawURLEncoding.EncodeToString(sum[:15]), cacheControl: cacheControl, policy: strict,
		contentType: cmp.Or(contentTypes[path.Ext(name)], mime.TypeByExtension(path.Ext(name)), "application/octet-stream"),
	}
	if len(body) > 1000 && zippable(p.contentType) {
		p.zipped = sync.OnceValue(func() []byte { // by the first who asks: the reference takes a quarter of a second
			var b bytes.Buffer
			w, _ := gzip.NewWriterLevel(&b, gzip.BestCompression)
			_, _ = w.Write(body)
			_ = w.Close()
			return b.Bytes()
		})
	}
	return p
}

// contentTypes are those that differ by operating system.
var contentTypes = map[string]string{
	".css": "text/css; charset=utf-8", ".html": "text/html; charset=utf-8", ".ico": "image/x-icon", ".js": "text/javascript; charset=utf-8",
	".json": "application/json", ".md": "text/markdown; charset=utf-8", ".svg": "image/svg+xml", ".tgz": "application/gzip",
	".txt": "text/plain; charset=utf-8", ".webmanifest": "application/manifest+json", ".woff2": "font/woff2",
}

// lingering is the time that an unread body is read, so that a client which is still sending sees the response: as the API's.
const lingering = 500 * time.Millisecond

// ServeHTTP answers a path below a mount with its page, and leaves all others to the API. It logs one event of a page as the API does of
// a request.
func (s *Site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	mount := mountOf(r.URL.Path)
	pages := s.mounts[mount]
	switch {
	case s.home != "" && r.URL.Path == "/" && (r.Method == http.MethodGet || r.Method == http.MethodHead) && strings.Contains(r.Header.Get("Accept"), "text/html"):
		w.Header().Set("Vary", "Accept")
		http.Redirect(w, r, s.home, http.StatusFound)
		return
	case pages == nil:
		s.api.ServeHTTP(w, r)
		return
	}
	if r.ContentLength != 0 { // nobody reads a body here, and net/http would wait for its end
		w.Header().Set("Connection", "close")
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(lingering))
	}
	begin := time.Now()
	observed := &statusWriter{ResponseWriter: w, status: http.StatusOK}
	s.serve(observed, r, pages)
	took := time.Since(begin)
	s.requests.WithLabelValues(mount, strconv.Itoa(observed.status)).Observe(took.Seconds())
	s.log.Info("page", zap.String("mount", mount), zap.String("method", r.Method), zap.Int("status", observed.status), zap.Duration("duration", took))
}

func (s *Site) serve(w http.ResponseWriter, r *http.Request, pages map[string]*page) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		h.Set("Content-Security-Policy", strict)
		http.Error(w, "Pages are read by GET and HEAD. The API is below /v1.", http.StatusMethodNotAllowed)
		return
	}
	at := strings.TrimRight(r.URL.Path, "/")
	if pages[at] == nil {
		at = s.spelled[strings.ToLower(at)] // as an error code in small letters
	}
	if at != r.URL.Path && pages[at] != nil {
		if r.URL.RawQuery != "" {
			at += "?" + r.URL.RawQuery
		}
		h.Set("Content-Security-Policy", strict)
		http.Redirect(w, r, at, http.StatusPermanentRedirect) //nolint:gosec // it begins with the path of a page of ours
		return
	}
	p := pages[r.URL.Path]
	if p == nil || p == s.notFound {
		h.Set("Content-Security-Policy", strict)
		h.Set("Cache-Control", revalidated)
		h.Set("Content-Type", contentTypes[".html"])
		if p = s.notFound; p == nil {
			http.Error(w, "There is no such page.", http.StatusNotFound)
			return
		}
		h.Set("Content-Length", strconv.Itoa(len(p.body)))
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write(p.body)
		return
	}
	p.serve(w, r)
}

// serve writes a page, or 304 if the client has it.
func (p *page) serve(w http.ResponseWriter, r *http.Request) {
	h, body, etag := w.Header(), p.body, p.etag
	if p.zipped != nil {
		h.Set("Vary", "Accept-Encoding")
		if acceptsGzip(r.Header.Get("Accept-Encoding")) {
			body, etag = p.zipped(), etag+"-gzip"
			h.Set("Content-Encoding", "gzip")
		}
	}
	h.Set("Content-Type", p.contentType)
	h.Set("Content-Length", strconv.Itoa(len(body))) // ServeContent leaves it out of what is compressed
	h.Set("Content-Security-Policy", p.policy)
	h.Set("Cache-Control", p.cacheControl)
	h.Set("Etag", strconv.Quote(etag))
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}

// acceptsGzip tells whether an Accept-Encoding names gzip, or all, with a quality above 0.
func acceptsGzip(header string) bool {
	accepted := false
	for part := range strings.SplitSeq(header, ",") {
		name, params, _ := strings.Cut(part, ";")
		name = strings.TrimSpace(name)
		q, isQ := strings.CutPrefix(strings.ReplaceAll(params, " ", ""), "q=")
		quality, err := strconv.ParseFloat(q, 64)
		allowed := !isQ || err == nil && quality > 0
		if strings.EqualFold(name, "gzip") {
			return allowed
		}
		accepted = accepted || name == "*" && allowed
	}
	return accepted
}

// statusWriter remembers the status for the log.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

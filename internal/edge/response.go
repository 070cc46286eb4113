package edge

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/ordergate/ordergate/command"
	"github.com/ordergate/ordergate/internal/token"
	"github.com/ordergate/ordergate/query"
)

// response is a finished response: status and bytes as they are sent. Nothing is encoded again. Its headers are those that were added to the request.
type response struct {
	status      int
	contentType string // empty: there is no body
	etag, body  string
	stream      *stream // what follows the head; nil: nothing
}

// add gives the response a header, by its canonical name. An empty value is left out.
func (r *request) add(name, value string) {
	if value != "" {
		r.headers = append(r.headers, header{name, [1]string{value}})
	}
}

// write sends the response. It does not wait for the rest of an unread body, as net/http would before it responds. An error is
// not reported: the client is gone.
func (w response) write(r *request) {
	h := r.response.Header()
	r.add("Etag", w.etag)
	if w.contentType != "" {
		r.add("Content-Type", w.contentType)
		r.bytes = strconv.AppendInt(r.bytes[:0], int64(len(w.body)), 10)
		r.add("Content-Length", r.keep(r.bytes))
	}
	for i := range r.headers {
		h[r.headers[i].name] = r.headers[i].value[:]
	}
	if !r.bodyRead && r.http.ContentLength != 0 {
		h.Set("Connection", "close")
		_ = http.NewResponseController(r.response.Writer).SetReadDeadline(connDeadline(lingering))
	}
	r.response.WriteHeader(w.status)
	if w.body != "" {
		_, _ = io.WriteString(r.response.Writer, w.body)
	}
}

// connDeadline is the instant after which an operation on a connection fails. It is on the machine's clock, as the runtime's timers are, whatever Config.Now
// says.
func connDeadline(in time.Duration) time.Time { return time.Now().Add(in) }

// notModified turns a response into 304 if the client has it already, as If-None-Match says.
func (r *request) notModified(w response) response {
	if r.ifNoneMatch != "" && namesTag(r.ifNoneMatch, w.etag) {
		return response{status: http.StatusNotModified, etag: w.etag}
	}
	return w
}

// namesTag tells whether If-None-Match is true of a tag (RFC 9110, 13.1.2): it is "*" alone, or a list that has the tag, strong or weak. A list is read
// as far as it is one.
func namesTag(list, etag string) bool {
	if list == "*" {
		return true
	}
	for {
		if list = strings.TrimLeft(list, " \t,"); list == "" { // empty elements are none
			return false
		}
		opaque, ok := strings.CutPrefix(strings.TrimPrefix(list, "W/"), `"`)
		end := strings.IndexByte(opaque, '"') // a comma before it is part of the tag
		if !ok || end < 0 {
			return false
		}
		tag := list[:len(list)-len(opaque)+end+1]
		list = strings.TrimLeft(opaque[end+1:], " \t")
		switch {
		case list != "" && list[0] != ',':
			return false
		case strings.TrimPrefix(tag, "W/") == etag:
			return true
		}
	}
}

// queryResponse is the response of a query. A refusal, too, has the token of the data that it comes from.
func (r *request) queryResponse(v query.View, err error) (response, error) {
	r.tier = v.Tier
	if err != nil {
		r.problemToken = v.Token
		return response{}, err
	}
	r.add("Cache-Control", "private, no-cache")
	r.add("X-Consistency-Token", v.Token)
	r.add("X-Served-By", v.Tier)
	r.add("Age", strconv.Itoa(v.Age))
	return r.notModified(response{status: http.StatusOK, contentType: "application/json", etag: v.ETag, body: v.Body}), nil
}

// awaiter turns the 202 of a command into its final result, if the order is decided in time.
type awaiter = func(ctx context.Context, e command.Envelope, accepted command.Result, within time.Duration) command.Result

// commandResponse is the response of a command; with Prefer: wait that of its final result, for which await waits, if there is one. A refusal
// carries the token of the state that it was decided on: a read with it sees why.
func (s *Server) commandResponse(ctx context.Context, r *request, result command.Result, err error, await awaiter) (response, error) {
	if err != nil {
		if result.LSN > 0 {
			r.problemToken = s.sign(token.Token{LSN: result.LSN})
		}
		return response{}, err
	}
	within, applied := waitOf(r.http.Header.Get("Prefer"))
	switch {
	case await == nil, result.Code != "": // a stored refusal
		applied = ""
	case within > 0 && result.Status == http.StatusAccepted:
		result = s.wait(ctx, r.envelope(), result, within, await)
	}
	t, replayed := token.Token{LSN: result.LSN, Key: result.Row(r.key.Owner), Rev: result.Rev}, "" // of a replay only the position is known
	if !result.OrderID.IsZero() {
		r.orderID = result.OrderID
	}
	if result.Replayed {
		replayed = "true"
	}
	if result.Code != "" { // a stored refusal, or one that was waited for
		r.code = result.Code
	}
	r.add("Location", result.Location)
	r.add("Idempotency-Replayed", replayed)
	r.add("Preference-Applied", applied)
	r.add("X-Consistency-Token", s.sign(t))
	return response{status: result.Status, contentType: result.ContentType, etag: result.Body.ETag, body: string(result.Body.Bytes)}, nil
}

func (s *Server) sign(t token.Token) string {
	t.Timeline = s.cfg.Timeline()
	return s.cfg.Signer.Sign(t)
}

// wait runs await until the client is gone or the server stops.
func (s *Server) wait(ctx context.Context, e command.Envelope, accepted command.Result, within time.Duration, await awaiter) command.Result {
	s.metrics.waiting.Inc()
	defer s.metrics.waiting.Dec()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.stopping, cancel)() //nolint:contextcheck // it adds an end, it replaces none
	return await(ctx, e, accepted, within)
}

// maxWait bounds Prefer: wait.
const maxWait = 10 * time.Second

// waitOf reads wait=S from a Prefer header (RFC 7240): the time, at most maxWait, and the text of Preference-Applied. The first wait
// counts. Anything else, rubbish of any length included, is ignored.
func waitOf(prefer string) (time.Duration, string) {
	value, found := waitPreference(prefer)
	if !found {
		return 0, ""
	}
	seconds, err := strconv.ParseUint(strings.Trim(hideSeparator.Replace(value), " \t\""), 10, 31)
	if err != nil {
		return 0, ""
	}
	wait := min(time.Duration(seconds)*time.Second, maxWait)
	return wait, "wait=" + strconv.Itoa(int(wait/time.Second))
}

var hideSeparator = strings.NewReplacer(",", " ", ";", " ") // those that are quoted

// waitPreference is what the first wait in a Prefer header has after its equals sign.
func waitPreference(prefer string) (value string, found bool) {
	const space = " \t\n\f\r"
	for begins := true; prefer != ""; { // an element, not a parameter of one
		var part string
		var separator byte
		if part, prefer, separator = cutUnquoted(prefer); begins {
			part = strings.TrimLeft(part, space)
			if name := part[:min(len(part), len("wait"))]; strings.EqualFold(name, "wait") {
				if part = strings.TrimLeft(part[len(name):], space); part == "" || part[0] == '=' {
					return strings.TrimPrefix(part, "="), true
				}
			}
		}
		begins = separator == ','
	}
	return "", false
}

// cutUnquoted cuts a list at its first comma or semicolon that is not quoted. A quote that does not end quotes the rest.
func cutUnquoted(list string) (before, after string, separator byte) {
	quoted := false
	for i := 0; i < len(list); i++ {
		switch c := list[i]; {
		case c == '"':
			quoted = !quoted
		case c == '\\' && quoted:
			i++
		case (c == ',' || c == ';') && !quoted:
			return list[:i], list[i+1:], c
		}
	}
	return list, "", 0
}

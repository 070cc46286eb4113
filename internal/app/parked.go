package app

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"github.com/ordergate/ordergate/command"
	"github.com/ordergate/ordergate/command/inventory"
	"github.com/ordergate/ordergate/gen/busdb"
	"github.com/ordergate/ordergate/internal/bus"
	"github.com/ordergate/ordergate/internal/outbox"
	"github.com/ordergate/ordergate/internal/telemetry"
	"github.com/ordergate/ordergate/order"
)

const (
	maxCauseShown = 100 // characters of a cause in a table
	maxQueueShown = 100 // messages of a queue that `parked show` lists
	retryPage     = 500 // messages that one transaction of `parked retry -all` looks at
)

// lostWith says, for each consumer, what a message that it never handles means.
var lostWith = map[string]string{
	"inventory":      "The stock is not moved and the order gets no reply: it stays as it is.",
	"saga.inventory": "The order never hears what became of its stock: it stays as it is, and the stock as inventory left it.",
	"saga.payment":   "The order never hears what became of its payment: it stays as it is, and the money where the provider has it.",
	"projection":     "Nothing is lost but time: a cache may show the order as it was before, for 12 s at most.",
}

// parkedMessage is a parked message as the subcommands show it. Type and the fields behind it are of the envelope, and empty if the
// payload is none.
type parkedMessage struct {
	ID        uuid.UUID       `json:"id"`
	Consumer  string          `json:"consumer"`
	OrderID   string          `json:"order_id"`
	Topic     string          `json:"topic"`
	TraceID   string          `json:"trace_id"`
	ParkedAt  time.Time       `json:"parked_at"`
	Cause     string          `json:"cause"`
	Messages  int64           `json:"messages,omitempty"` // in its queue, with it; list alone
	Type      string          `json:"type"`
	CreatedAt *time.Time      `json:"created_at"`
	Payload   json.RawMessage `json:"payload,omitempty"` // show alone: JSON, or a string with what the payload is instead
}

// newParked makes what is shown of a row.
func newParked(m busdb.ParkedMessage) parkedMessage {
	p := parkedMessage{
		ID: m.MessageID, Consumer: m.Consumer, OrderID: m.Key, Topic: m.Topic, TraceID: m.TraceID, ParkedAt: m.ParkedAt.UTC(), Cause: m.Cause,
	}
	if e, err := outbox.Open([]byte(m.Payload)); err == nil {
		p.Type, p.CreatedAt = e.Type, &e.CreatedAt.Time
	}
	return p
}

// parkedCause is a group of queues of which the first messages have one cause.
type parkedCause struct {
	Consumer string    `json:"consumer"`
	Cause    string    `json:"cause"`
	Queues   int64     `json:"queues"`
	Messages int64     `json:"messages"`
	Oldest   time.Time `json:"oldest"`
}

// parkedList is the output of `ordergate parked list`.
type parkedList struct {
	Messages int64           `json:"messages"`
	Queues   int64           `json:"queues"`
	Causes   []parkedCause   `json:"causes"` // the 20 largest
	First    []parkedMessage `json:"first"`  // of each queue
}

// parkedFilter are the flags that choose messages.
type parkedFilter struct{ consumer, order *string }

func newParkedFilter(flags *flag.FlagSet) parkedFilter {
	return parkedFilter{
		flags.String("consumer", "", "only messages of this `consumer`"), flags.String("order", "", "only messages of this order: its `id`"),
	}
}

// check refuses what no message can have. A consumer that is not known any more may have parked messages all the same.
func (f parkedFilter) check(found bool) error {
	if _, ok := order.Parse(order.PrefixOrder, *f.order); *f.order != "" && !ok {
		return fmt.Errorf("%q is not the id of an order", *f.order)
	}
	if all := consumerNames(); *f.consumer != "" && !found && !slices.Contains(all, *f.consumer) {
		return fmt.Errorf("no consumer %q; there are %s", *f.consumer, strings.Join(all, ", "))
	}
	return nil
}

func consumerNames() (names []string) {
	for _, c := range allConsumers(&inventory.Inventory{}, &command.Saga{}, nil) {
		names = append(names, c.Name)
	}
	return names
}

// withParked is withPrimary with the queries of parked messages.
func (proc process) withParked(ctx context.Context, fn func(*pgx.Conn, *busdb.Queries) error) error {
	return proc.withPrimary(ctx, func(conn *pgx.Conn) error { return fn(conn, busdb.New(conn)) })
}

// listParked is `ordergate parked list`.
func listParked(flags *flag.FlagSet) runner {
	filter := newParkedFilter(flags)
	limit := flags.Uint("limit", 100, "how many queues are listed; 0: all")
	asJSON := flags.Bool("json", false, "prints JSON")
	return func(ctx context.Context, proc process) error {
		list := parkedList{Causes: []parkedCause{}, First: []parkedMessage{}}
		if err := proc.withParked(ctx, func(_ *pgx.Conn, q *busdb.Queries) error {
			causes, err := q.CountParkedCauses(ctx, busdb.CountParkedCausesParams{Consumer: *filter.consumer, Key: *filter.order})
			if err = cmp.Or(err, filter.check(len(causes) > 0)); err != nil {
				return err
			}
			for _, c := range causes {
				list.Messages, list.Queues = c.AllMessages, c.AllQueues
				list.Causes = append(list.Causes, parkedCause{c.Consumer, c.Cause, c.Queues, c.Messages, c.Oldest.UTC()})
			}
			rows, err := q.ListParked(ctx, busdb.ListParkedParams{Consumer: *filter.consumer, Key: *filter.order, MaxRows: int32(min(*limit, 1<<30))})
			for _, r := range rows {
				m := newParked(busdb.ParkedMessage{
					Consumer: r.Consumer, Topic: r.Topic, Key: r.Key, MessageID: r.MessageID, TraceID: r.TraceID, Payload: r.Payload,
					Cause: r.Cause, ParkedAt: r.ParkedAt,
				})
				m.Messages = r.Messages
				list.First = append(list.First, m)
			}
			return err
		}); err != nil {
			return err
		}
		if *asJSON {
			return printJSON(proc.stdout, list)
		}
		return list.print(proc.stdout, time.Now())
	}
}

func (l parkedList) print(out io.Writer, now time.Time) error {
	if l.Queues == 0 {
		_, err := fmt.Fprintln(out, "no message is parked")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tCONSUMER\tORDER\tTYPE\tMESSAGES\tAGE\tCAUSE")
	for _, m := range l.First {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n", m.ID, m.Consumer, m.OrderID, cmp.Or(m.Type, "-"), m.Messages, age(now, m.ParkedAt), shortCause(m.Cause))
	}
	if more := l.Queues - int64(len(l.First)); more > 0 {
		fmt.Fprintf(w, "and %d more: -limit 0\n", more)
	}
	fmt.Fprintf(w, "\nparked: %d messages in %d queues, each of one order for one consumer\n\n", l.Messages, l.Queues)
	fmt.Fprintln(w, "CONSUMER\tQUEUES\tMESSAGES\tOLDEST\tCAUSE")
	for _, c := range l.Causes {
		fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%s\n", c.Consumer, c.Queues, c.Messages, age(now, c.Oldest), shortCause(c.Cause))
	}
	return w.Flush()
}

// shortCause is the first line of a cause, cut. The first message of a queue may have waited behind one that was dropped.
func shortCause(cause string) string {
	line, _, _ := strings.Cut(cause, "\n")
	if line == bus.CauseBehind {
		return "waits for a retry: the message before it was dropped"
	}
	if runes := []rune(line); len(runes) > maxCauseShown {
		line = string(runes[:maxCauseShown-3]) + "..."
	}
	return strings.ReplaceAll(line, "\t", " ")
}

// age is a time in the past in one unit.
func age(now, at time.Time) string {
	switch d := max(0, now.Sub(at)); {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	default:
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	}
}

func printJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// notParkedError says where a message is that is not parked.
type notParkedError struct {
	id    uuid.UUID
	state string // empty: nothing knows the message
}

func (e notParkedError) Error() string {
	return fmt.Sprintf("message %s is not parked: %s", e.id, cmp.Or(e.state, "neither outbox nor inbox has it. ordergate parked list shows those that are"))
}

// findParked returns the parked message that the first argument names. A message that several consumers could not handle needs the name of
// one. The error may be a notParkedError.
func findParked(ctx context.Context, q *busdb.Queries, text, consumer string) (busdb.ParkedMessage, error) {
	id, err := uuid.Parse(text)
	if err != nil {
		return busdb.ParkedMessage{}, fmt.Errorf("%q is not the id of a message: ordergate parked list shows them", text)
	}
	rows, err := q.GetParked(ctx, id)
	if err != nil {
		return busdb.ParkedMessage{}, err
	}
	if consumer != "" {
		rows = slices.DeleteFunc(rows, func(m busdb.ParkedMessage) bool { return m.Consumer != consumer })
	}
	switch len(rows) {
	case 1:
		return rows[0], nil
	case 0:
		where, err := q.FindMessage(ctx, id)
		state := ""
		switch {
		case err != nil:
			return busdb.ParkedMessage{}, err
		case where.Waiting:
			state = "it is in the outbox and will be handled"
		case len(where.Consumers) > 0:
			state = "it was handled by, or dropped for, " + strings.Join(where.Consumers, ", ")
		}
		return busdb.ParkedMessage{}, notParkedError{id, state}
	}
	names := make([]string, len(rows))
	for i, m := range rows {
		names[i] = m.Consumer
	}
	return busdb.ParkedMessage{}, fmt.Errorf("message %s is parked for %s: choose one by -consumer", id, strings.Join(names, " and "))
}

// parkedQueue is what is parked around a message.
type parkedQueue struct {
	first  uuid.UUID // of its queue: it may be the message itself
	behind []busdb.ParkedQueueRow
	total  int64 // of those behind, which may be more than are listed
}

func queueOf(ctx context.Context, q *busdb.Queries, m busdb.ParkedMessage) (queue parkedQueue, err error) {
	first, err := q.ParkedQueue(ctx, busdb.ParkedQueueParams{Consumer: m.Consumer, Key: m.Key, MaxRows: 1})
	if err != nil {
		return queue, err
	}
	for _, r := range first {
		queue.first = r.MessageID
	}
	queue.behind, err = q.ParkedQueue(ctx, busdb.ParkedQueueParams{Consumer: m.Consumer, Key: m.Key, After: m.ID, MaxRows: maxQueueShown})
	for _, r := range queue.behind {
		queue.total = r.Total
	}
	return queue, err
}

// showParked is `ordergate parked show`.
func showParked(flags *flag.FlagSet) runner {
	consumer := flags.String("consumer", "", "`consumer` that it is parked for, if there are several")
	asJSON := flags.Bool("json", false, "prints JSON")
	return func(ctx context.Context, proc process) error {
		return proc.withParked(ctx, func(_ *pgx.Conn, q *busdb.Queries) error {
			m, err := findParked(ctx, q, proc.args[0], *consumer)
			if err != nil {
				return err
			}
			queue, err := queueOf(ctx, q, m)
			if err != nil {
				return err
			}
			if !*asJSON {
				return printParked(proc.stdout, m, queue, time.Now())
			}
			shown := newParked(m)
			shown.Payload = json.RawMessage(m.Payload)
			if !json.Valid(shown.Payload) {
				shown.Payload, _ = json.Marshal(m.Payload) // a string always can be encoded
			}
			behind := make([]uuid.UUID, len(queue.behind))
			for i, r := range queue.behind {
				behind[i] = r.MessageID
			}
			return printJSON(proc.stdout, struct {
				parkedMessage

				First  uuid.UUID   `json:"first_of_queue"`
				Behind []uuid.UUID `json:"behind"` // at most 100
				Total  int64       `json:"behind_total"`
			}{shown, queue.first, behind, queue.total})
		})
	}
}

// printParked writes all that is known of a parked message.
func printParked(out io.Writer, m busdb.ParkedMessage, queue parkedQueue, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	field := func(name, format string, args ...any) { fmt.Fprintf(w, name+"\t"+format+"\n", args...) }
	instant := func(name string, at time.Time) {
		field(name, "%s, %s ago", at.UTC().Format(time.RFC3339Nano), age(now, at))
	}
	field("id", "%s", m.MessageID)
	field("consumer", "%s", m.Consumer)
	field("order", "%s", m.Key)
	field("topic", "%s", m.Topic)
	field("trace id", "%s", m.TraceID)
	if e, err := outbox.Open([]byte(m.Payload)); err != nil {
		field("envelope", "%v", err)
	} else {
		field("type", "%s, schema %d", e.Type, e.Schema)
		field("account", "%d, %s mode", e.Account, e.Mode)
		instant("created", e.CreatedAt.Time)
	}
	instant("parked", m.ParkedAt)
	if queue.first != m.MessageID {
		field("waits behind", "%s", queue.first)
	}
	var payload bytes.Buffer
	if json.Indent(&payload, []byte(m.Payload), "  ", "  ") != nil {
		payload.Reset()
		fmt.Fprintf(&payload, "no JSON: %q", m.Payload)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(out, "\ncause\n  %s\n\npayload\n  %s\n", strings.ReplaceAll(m.Cause, "\n", "\n  "), &payload)
	if queue.total == 0 {
		return nil
	}
	fmt.Fprintf(w, "\nbehind it: %d\n", queue.total)
	for _, r := range queue.behind {
		e, _ := outbox.Open([]byte(r.Payload)) // an error leaves the type empty
		fmt.Fprintf(w, "  %s\t%s\t%s\n", r.MessageID, cmp.Or(e.Type, "-"), age(now, r.ParkedAt))
	}
	if more := queue.total - int64(len(queue.behind)); more > 0 {
		fmt.Fprintf(w, "  and %d more\n", more)
	}
	return w.Flush()
}

// retryParked is `ordergate parked retry`: queues go back into the outbox, each in its order. A message is retried with its whole queue,
// because those before it come first and those behind it next. Repeating it does no harm.
func retryParked(flags *flag.FlagSet) runner {
	filter := newParkedFilter(flags)
	all := flags.Bool("all", false, "all messages, or all of -consumer")
	return func(ctx context.Context, proc process) error {
		byID := len(proc.args) == 1
		if n := len(proc.args) + count(*filter.order != "", *all); n != 1 {
			return errors.New("choose one of: the ID of a message, -order, -all")
		}
		return proc.withParked(ctx, func(conn *pgx.Conn, q *busdb.Queries) (err error) {
			var messages, queues int64
			retry := func(some []bus.Queue) error {
				n, err := bus.RetryParked(ctx, conn, some, shardOf)
				messages, queues = messages+n, queues+int64(len(some))
				return err
			}
			switch {
			case byID:
				var m busdb.ParkedMessage
				m, err = findParked(ctx, q, proc.args[0], *filter.consumer)
				if err == nil {
					err = retry([]bus.Queue{{Consumer: m.Consumer, Key: m.Key}})
				}
				if e, ok := errors.AsType[notParkedError](err); ok && e.state != "" {
					fmt.Fprintln(proc.stdout, e)
					err = nil
				}
			case *all:
				err = eachQueuePage(ctx, q, *filter.consumer, retry)
			default:
				err = retryOrder(ctx, q, filter, retry)
			}
			err = cmp.Or(err, filter.check(queues > 0))
			if err == nil || messages > 0 {
				fmt.Fprintf(proc.stdout, "%d messages of %d queues are in the outbox again\n", messages, queues)
			}
			return err
		})
	}
}

func count(conditions ...bool) (n int) {
	for _, is := range conditions {
		if is {
			n++
		}
	}
	return n
}

// shardOf is the shard of a key of the outbox. A key that is no order's has no order to keep.
func shardOf(key string) int16 {
	id, _ := order.Parse(order.PrefixOrder, key)
	return id.Shard()
}

// retryOrder retries the queues of one order.
func retryOrder(ctx context.Context, q *busdb.Queries, filter parkedFilter, retry func([]bus.Queue) error) error {
	rows, err := q.ListParked(ctx, busdb.ListParkedParams{Consumer: *filter.consumer, Key: *filter.order})
	if err != nil || len(rows) == 0 {
		return err
	}
	queues := make([]bus.Queue, len(rows))
	for i, r := range rows {
		queues[i] = bus.Queue{Consumer: r.Consumer, Key: r.Key}
	}
	return retry(queues)
}

// eachQueuePage calls retry with the queues that are parked at the beginning, in pages: one that is parked anew meanwhile is left alone.
func eachQueuePage(ctx context.Context, q *busdb.Queries, consumer string, retry func([]bus.Queue) error) error {
	last, err := q.LastParked(ctx)
	if err != nil {
		return err
	}
	for after, more := int64(0), true; more; {
		rows, err := q.ParkedPage(ctx, busdb.ParkedPageParams{After: after, Last: last, PageSize: retryPage})
		if err != nil {
			return err
		}
		var queues []bus.Queue
		for _, r := range rows {
			after = r.ID
			if queue := (bus.Queue{Consumer: r.Consumer, Key: r.Key}); (consumer == "" || consumer == r.Consumer) && !slices.Contains(queues, queue) {
				queues = append(queues, queue)
			}
		}
		if len(queues) > 0 {
			if err = retry(queues); err != nil {
				return err
			}
		}
		more = len(rows) == retryPage
	}
	return nil
}

// dropParked is `ordergate parked drop`: it deletes one message, and says before what is lost with it. Messages that wait behind it stay
// parked: an operator decides whether they make sense without it.
func dropParked(flags *flag.FlagSet) runner {
	consumer := flags.String("consumer", "", "`consumer` that it is parked for, if there are several")
	yes := flags.Bool("yes", false, "does not ask")
	return func(ctx context.Context, proc process) error {
		return proc.withParked(ctx, func(conn *pgx.Conn, q *busdb.Queries) error {
			m, err := findParked(ctx, q, proc.args[0], *consumer)
			if err != nil {
				return err
			}
			queue, err := queueOf(ctx, q, m)
			if err != nil {
				return err
			}
			if err = printParked(proc.stdout, m, queue, time.Now()); err != nil {
				return err
			}
			fmt.Fprintf(proc.stdout, "\nThis message will never be handled, and its payload is kept nowhere. %s\n", lostWith[m.Consumer])
			if queue.total > 0 {
				fmt.Fprintf(proc.stdout, "%d later messages of the order stay parked. They were sent in the belief that this one is handled first.\n", queue.total)
			}
			if err = proc.confirm(ctx, *yes, "Drop it?", "nothing was dropped"); err != nil {
				return err
			}
			dropped, err := bus.DropParked(ctx, conn, m.Consumer, m.MessageID)
			if err != nil {
				return err
			}
			if !dropped {
				return errors.New("it was retried or dropped meanwhile: nothing was dropped")
			}
			fmt.Fprintf(proc.stdout, "dropped %s\n", m.MessageID)
			if queue.total > 0 {
				fmt.Fprintf(proc.stdout, "the later messages go on with: ordergate parked retry -order %s -consumer %s\n", m.Key, m.Consumer)
			}
			return proc.withTelemetry(ctx, func(tel *telemetry.Telemetry) error {
				tel.Log.Error("message", zap.String("trace_id", m.TraceID), zap.String("consumer", m.Consumer), zap.String("topic", m.Topic), zap.String("key", m.Key),
					zap.String("outcome", "dropped"), zap.Stringer("id", m.MessageID), zap.String("operator", operator()), zap.String("database_user", conn.Config().User))
				return nil
			})
		})
	}
}

// confirm asks a question and fails unless the next line of stdin is yes. refused says what did not happen then.
func (proc process) confirm(ctx context.Context, yes bool, question, refused string) error {
	if yes {
		return nil
	}
	fmt.Fprint(proc.stdout, question, " Type yes: ")
	answer := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(proc.stdin).ReadString('\n') // an error is no yes
		answer <- strings.TrimSpace(line)
	}()
	select {
	case <-ctx.Done(): // Ctrl-C: nothing can end the read
		return ctx.Err()
	case line := <-answer:
		if line != "yes" {
			return fmt.Errorf("not confirmed: %s (-yes does not ask)", refused)
		}
		return nil
	}
}

// operator is the user and the host that a subcommand runs as.
func operator() string {
	host, _ := os.Hostname()
	name := "uid " + strconv.Itoa(os.Getuid()) // a container may have no name for it
	if u, err := user.Current(); err == nil && u.Username != "" {
		name = u.Username
	}
	return name + "@" + host
}

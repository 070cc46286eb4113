# Installs PostgreSQL and Redis where they are missing: by apt-get on Debian and Ubuntu (through sudo for everyone but root), by
# Homebrew on macOS. It neither upgrades nor restarts what is there. Elsewhere it names what to install.
#
#   sh install.sh [COMMAND...]     runs COMMAND meanwhile and fails if either does
set -eu

found() {
	for file in "$@"; do [ ! -x "$file" ] || return 0; done
	return 1
}

missing=
command -v initdb >/dev/null || found /usr/lib/postgresql/*/bin/initdb /usr/pgsql-*/bin/initdb /opt/homebrew/opt/postgresql@*/bin/initdb \
	/usr/local/opt/postgresql@*/bin/initdb || missing=postgresql
command -v redis-server >/dev/null || found /opt/homebrew/bin/redis-server /usr/local/bin/redis-server || missing="$missing redis-server"
if [ -z "$missing" ]; then
	"$@"
	exit
fi

sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
if command -v apt-get >/dev/null && { [ -z "$sudo" ] || command -v sudo >/dev/null; }; then
	if [ -n "$sudo" ]; then sudo -v; fi # asks for a password before anything else writes to the terminal
	apt() { $sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=120 "$@"; }
	by=apt-get
	install() { apt update && apt install -y --no-install-recommends $missing; }
elif command -v brew >/dev/null; then
	by=Homebrew
	install() { brew install $(echo "$missing" | sed 's/postgresql/postgresql@16/; s/redis-server/redis/'); }
else
	echo "PostgreSQL 15 or newer (initdb and postgres) and redis-server are needed: install$missing" >&2
	exit 1
fi

# Ctrl-C does not end the installer half-way: a package that is half installed is in the way the next time.
(
	trap '' INT TERM
	echo "installing with $by:" $missing
	if ! said=$(install 2>&1); then
		echo "$by failed:"
		echo "$said" | tail -n 30
		exit 1
	fi
	echo "installed:" $missing
) &
installer=$!
"$@"
wait $installer

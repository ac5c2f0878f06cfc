#!/usr/bin/env bash
# Installs the programs that the end-to-end tests run, from Debian's packages,
# without letting any of them start by itself. Does nothing where all are there.
# Where it may not install, it says what is missing; the tests then skip what
# needs it (or fail, with CI=true).
set -euo pipefail

# program:packages. dovecot's parts and PostgreSQL's live outside an ordinary user's PATH.
needs=(
	curl:curl
	fetchmail:fetchmail
	mpop:mpop
	python3:python3
	openssl:openssl
	dovecot:dovecot-core
	/usr/lib/dovecot/pop3-login:dovecot-pop3d
	gcc:gcc,libc6-dev
	testssl:testssl.sh
	sslscan:sslscan
	redis-server:redis-server
	postgres:postgresql
	named:bind9
	nginx:nginx
	/usr/lib/nginx/modules/ngx_mail_module.so:libnginx-mod-mail
	mkpasswd:whois
	mariadbd:mariadb-server
	slapd:slapd
	pgbouncer:pgbouncer
	perdition:perdition
	fail2ban-regex:fail2ban
)

PATH=$PATH:/usr/sbin:/sbin
packages=()
for bin in /usr/lib/postgresql/*/bin; do PATH=$PATH:$bin; done
for need in "${needs[@]}"; do
	command -v "${need%%:*}" >/dev/null && continue
	[[ $need == /* && -e ${need%%:*} ]] && continue # which need not be a program
	IFS=, read -ra more <<<"${need#*:}"
	packages+=("${more[@]}")
done
# Unpacked beside the system and not installed: Debian allows one POP3 server only, and that is Dovecot.
beside=/usr/local/lib/popgate-tests/mailutils
[ -e "$beside/usr/sbin/pop3d" ] || unpack=mailutils-pop3d
[ ${#packages[@]} -gt 0 ] || [ -n "${unpack-}" ] || exit 0

if ! command -v apt-get >/dev/null; then
	echo "The end-to-end tests need what Debian calls: ${packages[*]} ${unpack-}. Install these with this system's own package manager." >&2
	exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
	echo "The end-to-end tests need: ${packages[*]} ${unpack-}. Install with: sudo $0" >&2
	exit 0
fi

echo "installing for the tests: ${packages[*]} ${unpack-}"
export DEBIAN_FRONTEND=noninteractive
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	trap 'rm -f "$policy"' EXIT
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod +x "$policy"
fi
apt-get update -qq
[ ${#packages[@]} -eq 0 ] || apt-get install -y -qq --no-install-recommends "${packages[@]}" </dev/null >/dev/null
[ -n "${unpack-}" ] || exit 0

# The package, and those of its libraries that are not there.
mapfile -t all < <(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances "$unpack" |
	grep -E "^($unpack|lib)" | sort -u)
missing=()
for one in "${all[@]}"; do
	dpkg-query -W -f '${Status}' "$one" 2>/dev/null | grep -q 'ok installed' || missing+=("$one")
done
folder=$(mktemp -d)
(cd "$folder" && apt-get download -qq "${missing[@]}" >/dev/null 2>&1) || { # some of the names may be virtual
	for one in "${missing[@]}"; do (cd "$folder" && apt-get download -qq "$one" >/dev/null 2>&1) || true; done
}
mkdir -p "$beside"
for one in "$folder"/*.deb; do dpkg -x "$one" "$beside"; done
rm -rf "$folder"

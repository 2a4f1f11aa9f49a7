# Sourced. `debian_sources SUITE` prints deb822-free, one-line apt sources for SUITE and its security updates, with the
# mirrors of the machine's own apt configuration. On a machine that is not Debian it prints nothing: mmdebstrap then
# takes the mirror it knows.

debian_sources() {
    local suite=$1 uri release
    apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(ORIGIN) $(COMPONENT)' 'Created-By: Packages' 2>/dev/null |
        sort -u | while read -r uri release origin component; do
        [ "$origin" = Debian ] && [ "$component" = main ] || continue
        case $release in
        *-security) echo "deb $uri $suite-security main" ;;
        *-updates) echo "deb $uri $suite-updates main" ;;
        *-backports*) ;;
        *) echo "deb $uri $suite main" ;;
        esac
    done | sort -u
}
